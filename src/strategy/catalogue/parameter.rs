//! A number, a switch or a name that a part is made of.

use serde_json::{Map, Value};

use super::CatalogueError;

/// A parameter of a part.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Parameter {
    /// Its key in a job's `[strategy]` table.
    pub name: String,
    /// What it is, in a few words.
    pub about: String,
    /// Which values it can have.
    pub kind: ParameterKind,
    /// Its value in jobs that do not give it. Without a default, a part sees whether the job gives it.
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

    /// The value in what a job asks for, else the default.
    pub(super) fn value_of(
        &self,
        asked: &Map<String, Value>,
    ) -> Result<Option<Value>, CatalogueError> {
        let Some(value) = asked.get(&self.name) else {
            return Ok(self.default.clone());
        };
        match (&self.kind, value) {
            (ParameterKind::Number { .. }, Value::Number(number)) => {
                let number = number.as_f64().unwrap_or(f64::NAN);
                self.check_number(number)?;
                // One form for one value: 1 and 1.0 are the same strategy.
                Ok(Some(number.into()))
            }
            (ParameterKind::Number { .. }, other) => {
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
        let ParameterKind::Number {
            least,
            with_least,
            most,
            with_most,
        } = self.kind
        else {
            return Ok(());
        };
        let is_enough = number > least || (with_least && number == least);
        let is_at_most = number < most || (with_most && number == most);
        if number.is_finite() && is_enough && is_at_most {
            return Ok(());
        }
        let problem = format!("must be {}, not {number}", self.kind.range());
        Err(CatalogueError::new(&self.name, problem))
    }
}

impl ParameterKind {
    /// The values in words: "a number above 0 and at most 1".
    pub fn range(&self) -> String {
        let (least, with_least, most, with_most) = match self {
            Self::Number {
                least,
                with_least,
                most,
                with_most,
            } => (least, with_least, most, with_most),
            Self::Flag => return "true or false".to_string(),
            Self::Any => return "any value".to_string(),
        };
        let from = if *with_least { "of at least" } else { "above" };
        let from = format!("a number {from} {least}");
        if most.is_infinite() {
            return from;
        }
        let to = if *with_most { "at most" } else { "below" };
        format!("{from} and {to} {most}")
    }
}

/// The values of a strategy's parameters, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Values(Map<String, Value>);

impl Values {
    pub(super) fn new(values: Map<String, Value>) -> Self {
        Self(values)
    }

    pub(super) fn into_inner(self) -> Map<String, Value> {
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

    /// A number, if the job gives it or it has a default.
    pub fn given(&self, name: &str) -> Option<f64> {
        self.0.get(name).and_then(Value::as_f64)
    }

    /// A switch; false if the part did not declare it.
    pub fn flag(&self, name: &str) -> bool {
        self.0.get(name).and_then(Value::as_bool).unwrap_or(false)
    }

    /// The value as the job gives it.
    pub fn any(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }
}
