//! The last two global models: what a free rider makes its change of.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{ids::ModelVersion, parameters::Parameters};

/// The global models of the last two versions in which anybody trained.
#[derive(Debug, Default)]
pub(super) struct History(Mutex<VecDeque<Version>>);

/// A version, and its model.
type Version = (ModelVersion, Arc<Parameters>);

/// How many versions are kept.
const KEPT: usize = 2;

impl History {
    /// A client trains from this model. Called for honest clients too: a version is known before the first task of the next one, so
    /// that what attackers send does not depend on who trains first.
    pub fn saw(&self, version: ModelVersion, global: &Parameters) {
        let mut models = self.lock();
        if let Some((_, model)) = models.iter_mut().find(|(known, _)| *known == version) {
            // Another run with the same attackers may begin with another model.
            if model.values() != global.values() {
                *model = Arc::new(global.clone());
            }
            return;
        }
        let is_later = models.back().is_none_or(|(last, _)| *last < version);
        if !is_later && version != ModelVersion(0) {
            // A task of a round that has closed: nobody waits for its report.
            return;
        }
        if !is_later {
            // A new run.
            models.clear();
        }
        models.push_back((version, Arc::new(global.clone())));
        if models.len() > KEPT {
            models.pop_front();
        }
    }

    /// The last global model before this version.
    pub fn before(&self, version: ModelVersion) -> Option<Arc<Parameters>> {
        let models = self.lock();
        let found = models.iter().rev().find(|(known, _)| *known < version);
        found.map(|(_, model)| model.clone())
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Version>> {
        // Whole models are put in place, so that a panic leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::{Layout, Role};

    fn model(value: f32) -> Parameters {
        let layout = Layout::new([("w".to_string(), vec![1], Role::Trainable)]).unwrap();
        Parameters::new(layout, vec![value]).unwrap()
    }

    #[test]
    fn two_models_are_kept_and_a_new_run_begins_without_any() {
        let history = History::default();
        let before = |version| {
            let found = history.before(ModelVersion(version));
            found.map(|model| model.values()[0])
        };
        for version in 0..4 {
            history.saw(ModelVersion(version), &model(version as f32));
            history.saw(ModelVersion(version), &model(version as f32));
            assert_eq!(
                before(version),
                version.checked_sub(1).map(|last| last as f32)
            );
        }
        // A late task of an earlier version changes nothing.
        history.saw(ModelVersion(1), &model(9.0));
        assert_eq!(before(3), Some(2.0));
        history.saw(ModelVersion(0), &model(10.0));
        assert_eq!(before(0), None);
        history.saw(ModelVersion(1), &model(11.0));
        assert_eq!(before(1), Some(10.0));
        // A run of one version, and another one that begins with another model.
        let history = History::default();
        history.saw(ModelVersion(0), &model(1.0));
        history.saw(ModelVersion(0), &model(2.0));
        history.saw(ModelVersion(1), &model(3.0));
        assert_eq!(history.before(ModelVersion(1)).unwrap().values(), [2.0]);
    }
}
