//! The attacks by name: [`Attacks`].

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde_json::Map;

use super::{Attack, AttackError, AttackSpec};
use crate::{
    panics, spelling,
    strategy::{CatalogueError, PartInfo, Values},
};

type Make = dyn Fn(&Values) -> Result<Arc<dyn Attack>, String> + Send + Sync;

#[derive(Clone)]
struct Known {
    info: PartInfo,
    make: Arc<Make>,
}

/// The attacks that can be named. The default has those of this crate; an embedder adds attacks of their own.
///
/// ```
/// use fedavg::{attack::{Attacks, SignFlip}, strategy::{Parameter, PartInfo}};
///
/// let info = PartInfo::new("harder", "the opposite, ten times as long").parameter(Parameter::at_least("by", 0.0, 10.0));
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
        info: PartInfo,
        make: impl Fn(&Values) -> Result<A, String> + Send + Sync + 'static,
    ) -> Self {
        let name = info.name.clone();
        let make: Arc<Make> = Arc::new(move |values| Ok(Arc::new(make(values)?)));
        self.0.insert(name, Known { info, make });
        self
    }

    /// All of them, by name.
    pub fn infos(&self) -> Vec<&PartInfo> {
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
        let values = resolve(&known.info, spec)?.into_inner();
        let numbers = values
            .into_iter()
            .filter_map(|(key, value)| Some((key, value.as_f64()?)));
        spec.settings = numbers.collect();
        Ok(())
    }

    fn find(&self, kind: &str) -> Result<&Known, AttackError> {
        self.0.get(kind).ok_or_else(|| {
            let known: Vec<_> = self.0.keys().map(String::as_str).collect();
            AttackError::Unknown {
                kind: kind.to_string(),
                hint: spelling::hint(kind, known.iter().copied()),
                known: known.join(", "),
            }
        })
    }
}

/// The values of all parameters, checked.
fn resolve(info: &PartInfo, spec: &AttackSpec) -> Result<Values, AttackError> {
    let mut asked = Map::new();
    for (key, value) in &spec.settings {
        let mut parameters = info.parameters.iter();
        if !parameters.any(|parameter| parameter.name == *key) {
            return Err(unknown_parameter(info, key));
        }
        asked.insert(key.clone(), (*value).into());
    }
    Values::of(&info.parameters, &asked).map_err(|CatalogueError { key, problem, .. }| {
        let kind = info.name.clone();
        AttackError::Parameter { kind, key, problem }
    })
}

fn unknown_parameter(info: &PartInfo, key: &str) -> AttackError {
    let known = info.parameters.iter().map(|known| known.name.as_str());
    let known: Vec<_> = known.collect();
    let hint = spelling::hint(key, known.iter().copied());
    let problem = if known.is_empty() {
        "is not known: it has no parameters".to_string()
    } else {
        format!(
            "is not a parameter of it{hint}; it has {}",
            known.join(", ")
        )
    };
    AttackError::Parameter {
        kind: info.name.clone(),
        key: key.to_string(),
        problem,
    }
}
