//! Objectives by name: this crate's, and those that an embedder registered.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::{
    super::TrainError, contract::LocalObjective, feddyn::FedDyn, plain::Plain, proximal::Proximal,
    scaffold::Scaffold,
};
use crate::objective::Objective;

/// The objectives of this crate, as capabilities name them.
const OWN: [&str; 3] = ["feddyn", "proximal", "scaffold"];

/// The objectives that a worker can carry out.
#[derive(Clone, Default)]
pub struct Objectives {
    custom: BTreeMap<String, Arc<dyn LocalObjective>>,
}

impl fmt::Debug for Objectives {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.names()).finish()
    }
}

impl Objectives {
    /// The same with one more, for [`Objective::Custom`] of this name. One of this name that was known before is replaced.
    pub fn with(
        mut self,
        name: impl Into<String>,
        objective: impl LocalObjective + 'static,
    ) -> Self {
        self.custom.insert(name.into(), Arc::new(objective));
        self
    }

    /// The objective that a task asks for.
    ///
    /// # Errors
    ///
    /// [`TrainError::Task`] names those that are known.
    pub fn find(&self, objective: &Objective) -> Result<Arc<dyn LocalObjective>, TrainError> {
        Ok(match objective {
            Objective::Plain => Arc::new(Plain),
            Objective::Proximal { mu } => Arc::new(Proximal { mu: *mu }),
            Objective::Scaffold { restarts } => Arc::new(Scaffold {
                restarts: *restarts,
            }),
            Objective::FedDyn { alpha, restarts } => Arc::new(FedDyn {
                alpha: *alpha,
                restarts: *restarts,
            }),
            Objective::Custom { name, .. } => match self.custom.get(name) {
                Some(found) => found.clone(),
                None => {
                    let known: Vec<_> = self.names().collect();
                    return Err(TrainError::Task(format!(
                        "no objective {name:?} is known here; known are {}",
                        known.join(", ")
                    )));
                }
            },
        })
    }

    /// What a worker with these objectives says that it can do: `objective:NAME` for each, and the payloads that they make.
    pub fn capabilities(&self) -> impl Iterator<Item = String> + '_ {
        let named = self
            .names()
            .filter(|name| *name != "plain")
            .map(|name| format!("objective:{name}"));
        named.chain([format!("payload:{}", super::scaffold::CONTROL)])
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let custom = self.custom.keys().map(String::as_str);
        ["plain"].into_iter().chain(OWN).chain(custom)
    }
}
