//! The attacks by name: [`Attacks`].

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::{Attack, AttackError, AttackParameter, AttackSpec, AttackValues};
use crate::panics;

/// What is said of an attack.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AttackInfo {
    /// Its name.
    pub name: String,
    /// What attackers send, in one sentence without a full stop.
    pub about: String,
    /// Where it was published; empty if it was not.
    pub paper: String,
    /// Its parameters.
    pub parameters: Vec<AttackParameter>,
}

impl AttackInfo {
    /// An attack without parameters.
    pub fn new(name: impl Into<String>, about: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            about: about.into(),
            paper: String::new(),
            parameters: Vec::new(),
        }
    }

    /// The same, published there.
    pub fn paper(mut self, paper: impl Into<String>) -> Self {
        self.paper = paper.into();
        self
    }

    /// The same with one more parameter.
    pub fn parameter(mut self, parameter: AttackParameter) -> Self {
        self.parameters.push(parameter);
        self
    }
}

type Make = dyn Fn(&AttackValues) -> Result<Arc<dyn Attack>, String> + Send + Sync;

#[derive(Clone)]
struct Known {
    info: AttackInfo,
    make: Arc<Make>,
}

/// The attacks that can be named. The default has those of this crate; an embedder adds attacks of their own.
///
/// ```
/// use fedavg::attack::{AttackInfo, AttackParameter, Attacks, SignFlip};
///
/// let info = AttackInfo::new("harder", "the opposite, ten times as long").parameter(AttackParameter::at_least("by", 0.0, 10.0));
/// let attacks = Attacks::default().with(info, |values| Ok(SignFlip::new(values.number("by"))));
/// let attack = attacks.make(&"harder:0.2".parse()?)?;
/// assert!(!attack.needs().colluders);
/// # Ok::<(), fedavg::attack::AttackError>(())
/// ```
#[derive(Clone)]
pub struct Attacks(BTreeMap<String, Known>);

impl fmt::Debug for Attacks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.0.keys()).finish()
    }
}

impl Attacks {
    /// None.
    pub(super) fn empty() -> Self {
        Self(BTreeMap::new())
    }

    /// Adds an attack. One of the same name is replaced.
    pub fn with<A: Attack + 'static>(
        mut self,
        info: AttackInfo,
        make: impl Fn(&AttackValues) -> Result<A, String> + Send + Sync + 'static,
    ) -> Self {
        let name = info.name.clone();
        let make: Arc<Make> = Arc::new(move |values| Ok(Arc::new(make(values)?)));
        self.0.insert(name, Known { info, make });
        self
    }

    /// All of them, by name.
    pub fn infos(&self) -> Vec<&AttackInfo> {
        self.0.values().map(|known| &known.info).collect()
    }

    /// Makes an attack.
    ///
    /// # Errors
    ///
    /// [`AttackError::Unknown`] lists the names that are known, [`AttackError::Parameter`] the parameters; [`AttackError::Unusable`] if
    /// the values do not fit each other.
    pub fn make(&self, spec: &AttackSpec) -> Result<Arc<dyn Attack>, AttackError> {
        let known = self.find(&spec.kind)?;
        let values = resolve(&known.info, spec)?;
        // An embedder's code: a panic in it is an error in words.
        let made = panics::caught(|| (known.make)(&values)).unwrap_or_else(Err);
        made.map_err(|problem| AttackError::Unusable(format!("attack {}: {problem}", spec.kind)))
    }

    /// Gives a value to all parameters that have a default. With them, a record says what was done even if the defaults change later.
    ///
    /// # Errors
    ///
    /// As [`Attacks::make`].
    pub fn complete(&self, spec: &mut AttackSpec) -> Result<(), AttackError> {
        let known = self.find(&spec.kind)?;
        spec.settings = resolve(&known.info, spec)?.into_inner();
        Ok(())
    }

    fn find(&self, kind: &str) -> Result<&Known, AttackError> {
        self.0.get(kind).ok_or_else(|| {
            let known: Vec<_> = self.0.keys().map(String::as_str).collect();
            AttackError::Unknown {
                kind: kind.to_string(),
                known: known.join(", "),
            }
        })
    }
}

/// The values of all parameters, checked.
fn resolve(info: &AttackInfo, spec: &AttackSpec) -> Result<AttackValues, AttackError> {
    let refuse = |key: &str, problem: String| AttackError::Parameter {
        kind: info.name.clone(),
        key: key.to_string(),
        problem,
    };
    let mut values = BTreeMap::new();
    for parameter in &info.parameters {
        if let Some(default) = parameter.default {
            values.insert(parameter.name.clone(), default);
        }
    }
    for (key, value) in &spec.settings {
        let mut parameters = info.parameters.iter();
        let Some(parameter) = parameters.find(|parameter| parameter.name == *key) else {
            let known: Vec<_> = info
                .parameters
                .iter()
                .map(|known| known.name.as_str())
                .collect();
            let known = if known.is_empty() {
                "none".to_string()
            } else {
                known.join(", ")
            };
            return Err(refuse(
                key,
                format!("is no parameter of it; it has {known}"),
            ));
        };
        parameter
            .check(*value)
            .map_err(|problem| refuse(key, problem))?;
        values.insert(key.clone(), *value);
    }
    Ok(AttackValues::new(values))
}
