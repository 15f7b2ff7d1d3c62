//! A number, a switch or a name that a part is made of.

use serde_json::{Map, Value};

use super::CatalogueError;

/// A parameter of a part of a strategy, or of an attack.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Parameter {
    /// Its name: in a job's `[strategy]` table, its key.
    pub name: String,
    /// What it is, in a few words.
    pub about: String,
    /// Which values it can have.
    pub kind: ParameterKind,
    /// Its value if it is not given. Without a default, a part sees whether it is given.
    pub default: Option<Value>,
}

/// Which values a parameter can have. Numbers are finite.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ParameterKind {
    /// A number above `least`, or at least it; and at most `most`, or below it.
    Number {
        /// The least.
        least: f64,
        /// Whether it can have that value.
        with_least: bool,
        /// The most.
        most: f64,
        /// Whether it can have that value.
        with_most: bool,
    },
    /// A whole number from `least` to `most`, with both.
    Whole {
        /// The least.
        least: u32,
        /// The most; `u32::MAX` if there is no limit of its own.
        most: u32,
    },
    /// True or false.
    Flag,
    /// Any JSON value; the part checks it.
    Any,
}

impl Parameter {
    /// A parameter of this kind.
    pub fn new(name: impl Into<String>, kind: ParameterKind, default: Option<Value>) -> Self {
        Self {
            name: name.into(),
            about: String::new(),
            kind,
            default,
        }
    }

    /// A number of at least this.
    pub fn at_least(name: impl Into<String>, least: f64, default: f64) -> Self {
        Self::number(name, (least, true), (f64::INFINITY, false), default)
    }

    /// A number above this.
    pub fn above(name: impl Into<String>, least: f64, default: f64) -> Self {
        Self::number(name, (least, false), (f64::INFINITY, false), default)
    }

    /// A number above 0 and at most 1.
    pub fn share(name: impl Into<String>, default: f64) -> Self {
        Self::number(name, (0.0, false), (1.0, true), default)
    }

    /// A number of at least 0 and below 1, as a factor of decay is.
    pub fn decay(name: impl Into<String>, default: f64) -> Self {
        Self::number(name, (0.0, true), (1.0, false), default)
    }

    /// A number from `least` to `most`, with both. An infinite end is no limit.
    pub fn between(name: impl Into<String>, least: f64, most: f64, default: f64) -> Self {
        Self::number(name, (least, true), (most, true), default)
    }

    /// A whole number from `least` to `most`, with both.
    pub fn whole(name: impl Into<String>, least: u32, most: u32, default: u32) -> Self {
        let kind = ParameterKind::Whole { least, most };
        Self::new(name, kind, Some(f64::from(default).into()))
    }

    fn number(
        name: impl Into<String>,
        (least, with_least): (f64, bool),
        (most, with_most): (f64, bool),
        default: f64,
    ) -> Self {
        let kind = ParameterKind::Number {
            least,
            with_least,
            most,
            with_most,
        };
        Self::new(name, kind, Some(default.into()))
    }

    /// The same with a description.
    pub fn about(mut self, about: impl Into<String>) -> Self {
        self.about = about.into();
        self
    }

    /// The same without a default: a part can ask whether it was given.
    pub fn optional(mut self) -> Self {
        self.default = None;
        self
    }

    /// The value in what is asked for, else the default.
    fn value_of(&self, asked: &Map<String, Value>) -> Result<Option<Value>, CatalogueError> {
        let Some(value) = asked.get(&self.name) else {
            return Ok(self.default.clone());
        };
        match (&self.kind, value) {
            (ParameterKind::Number { .. } | ParameterKind::Whole { .. }, Value::Number(number)) => {
                let number = number.as_f64().unwrap_or(f64::NAN);
                self.check_number(number)?;
                // One form for one value: 1 and 1.0 are the same strategy.
                Ok(Some(number.into()))
            }
            (ParameterKind::Number { .. } | ParameterKind::Whole { .. }, other) => {
                Err(CatalogueError::not_a(&self.name, &self.kind.range(), other))
            }
            (ParameterKind::Flag, Value::Bool(_)) | (ParameterKind::Any, _) => {
                Ok(Some(value.clone()))
            }
            (ParameterKind::Flag, other) => {
                Err(CatalogueError::not_a(&self.name, "true or false", other))
            }
        }
    }

    fn check_number(&self, number: f64) -> Result<(), CatalogueError> {
        if self.kind.has(number) {
            return Ok(());
        }
        let mut problem = format!("must be {}, not {number}", self.kind.range());
        // No range says this limit.
        if matches!(self.kind, ParameterKind::Whole { .. }) && number > f64::from(u32::MAX) {
            problem = format!(
                "must be a whole number of at most {}, not {number}",
                u32::MAX
            );
        }
        Err(CatalogueError::new(&self.name, problem))
    }
}

impl ParameterKind {
    /// Whether a number is one of its values.
    fn has(&self, number: f64) -> bool {
        match *self {
            Self::Number {
                least,
                with_least,
                most,
                with_most,
            } => {
                let is_enough = number > least || (with_least && number == least);
                let is_at_most = number < most || (with_most && number == most);
                number.is_finite() && is_enough && is_at_most
            }
            Self::Whole { least, most } => {
                let is_whole = number.fract() == 0.0;
                is_whole && number >= f64::from(least) && number <= f64::from(most)
            }
            Self::Flag | Self::Any => true,
        }
    }

    /// The values in words: "a number above 0 and at most 1".
    pub fn range(&self) -> String {
        let (least, with_least, most, with_most) = match self {
            Self::Number {
                least,
                with_least,
                most,
                with_most,
            } => (least, with_least, most, with_most),
            Self::Whole {
                least,
                most: u32::MAX,
            } => return format!("a whole number of at least {least}"),
            Self::Whole { least, most } => {
                return format!("a whole number of at least {least} and at most {most}");
            }
            Self::Flag => return "true or false".to_string(),
            Self::Any => return "any value".to_string(),
        };
        let mut limits = Vec::new();
        if least.is_finite() {
            let from = if *with_least { "of at least" } else { "above" };
            limits.push(format!("{from} {least}"));
        }
        if most.is_finite() {
            let to = if *with_most { "at most" } else { "below" };
            limits.push(format!("{to} {most}"));
        }
        if limits.is_empty() {
            return "a number".to_string();
        }
        format!("a number {}", limits.join(" and "))
    }
}

/// The values of the parameters of a strategy or of an attack, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Values(Map<String, Value>);

impl Values {
    /// The value of each parameter that is asked for or has a default.
    pub(crate) fn of(
        parameters: &[Parameter],
        asked: &Map<String, Value>,
    ) -> Result<Self, CatalogueError> {
        let mut values = Map::new();
        for parameter in parameters {
            if let Some(value) = parameter.value_of(asked)? {
                values.insert(parameter.name.clone(), value);
            }
        }
        Ok(Self(values))
    }

    pub(super) fn set(&mut self, name: &str, value: String) {
        self.0.insert(name.to_string(), value.into());
    }

    /// A text; empty if there is none.
    pub(super) fn text(&self, name: &str) -> &str {
        self.any(name).and_then(Value::as_str).unwrap_or_default()
    }

    pub(crate) fn into_inner(self) -> Map<String, Value> {
        self.0
    }

    /// A number.
    ///
    /// # Panics
    ///
    /// If the part did not declare such a parameter with a default.
    pub fn number(&self, name: &str) -> f64 {
        let found = self.given(name);
        found.unwrap_or_else(|| panic!("the part declares no number {name:?} with a default"))
    }

    /// A whole number of at most 32 bits, if it is given or has a default.
    ///
    /// # Errors
    ///
    /// In words, if the number is not one.
    pub fn whole(&self, name: &str) -> Result<Option<u32>, String> {
        let Some(number) = self.given(name) else {
            return Ok(None);
        };
        // The conversion saturates.
        let whole = number as u32;
        if f64::from(whole) == number {
            return Ok(Some(whole));
        }
        Err(format!(
            "{name} must be a whole number of at most {}, not {number}",
            u32::MAX
        ))
    }

    /// A number, if it is given or has a default.
    pub fn given(&self, name: &str) -> Option<f64> {
        self.0.get(name).and_then(Value::as_f64)
    }

    /// A switch; false if the part did not declare it.
    pub fn flag(&self, name: &str) -> bool {
        self.0.get(name).and_then(Value::as_bool).unwrap_or(false)
    }

    /// The value as it is given.
    pub fn any(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }
}
