//! Which versions are to be evaluated, in order.

use std::collections::{BTreeSet, VecDeque};

use super::*;
use crate::settings::EvalSplit;

/// The books of the evaluations.
#[derive(Debug, Default)]
pub struct Evaluations {
    /// Those that a commit made due, and the last ones once the machine began with them.
    due: VecDeque<(ModelVersion, EvalSplit)>,
    /// The last ones, which no commit made due.
    last: BTreeSet<(ModelVersion, EvalSplit)>,
}

impl Evaluations {
    pub fn committed(&mut self, config: &MachineConfig, version: ModelVersion) {
        let plan = &config.progress.evaluation;
        let is_last = version.0 == u64::from(config.rounds);
        let is_due = is_last || version.0.is_multiple_of(u64::from(plan.every));
        if config.evaluation != EvaluationBy::Nobody && is_due {
            self.due.push_back((version, plan.split()));
        }
    }

    /// Whether this one's turn has come. After all that were due, each of the last ones comes once.
    pub fn is_next(&mut self, version: ModelVersion, split: EvalSplit) -> bool {
        if self.due.is_empty() && self.last.insert((version, split)) {
            self.due.push_back((version, split));
        }
        self.due.front() == Some(&(version, split))
    }

    pub fn ended(&mut self, version: ModelVersion, split: EvalSplit) -> bool {
        let is_next = self.is_next(version, split);
        self.due.pop_front();
        is_next
    }

    /// What is due and has no end.
    pub fn open(&self) -> impl Iterator<Item = ModelVersion> + '_ {
        self.due.iter().map(|(version, _)| *version)
    }

    /// Whether the end has all that it needs, of a job whose rounds are over at this version.
    pub fn is_complete(&self, config: &MachineConfig, version: ModelVersion) -> bool {
        let has_validation = config.progress.evaluation.validation;
        self.due.is_empty()
            && (config.evaluation == EvaluationBy::Nobody
                || !has_validation
                || self.last.contains(&(version, EvalSplit::Test)))
    }
}
