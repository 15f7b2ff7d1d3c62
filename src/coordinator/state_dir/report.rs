//! What is in a state folder, in a form for people and programs.

use std::{fmt, path::PathBuf};

use serde::Serialize;

use crate::{
    ids::{CoordinatorId, JobId, ModelVersion, RoundId, Timestamp, WorkerId},
    round::WorkerState,
};

/// What a coordinator would go on with, and what is wrong with it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct StateReport {
    /// Which coordinator it is; none if no coordinator has started here yet.
    pub coordinator: Option<CoordinatorId>,
    /// How often it has started.
    pub term: u64,
    /// When it was last known to be alive.
    pub alive: Option<Timestamp>,
    /// All jobs, by number. Those that are queued start in this order, after those of higher priority.
    pub jobs: Vec<KeptJob>,
    /// The workers that are remembered.
    pub workers: Vec<KeptWorker>,
    /// How many files of models and reports are needed, and their bytes.
    pub files: usize,
    /// Bytes of these files.
    pub bytes: u64,
    /// What the next coordinator removes, since nothing refers to it: paths in the folder.
    pub leftovers: Vec<PathBuf>,
    /// What is wrong. Empty: all is well.
    pub problems: Vec<StateProblem>,
}

/// A job that is kept.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct KeptJob {
    /// Its number.
    pub job: JobId,
    /// The model that it trains.
    pub model: String,
    /// The dataset.
    pub dataset: String,
    /// `queued`, `running` or `ended`.
    pub stage: &'static str,
    /// What it does or how it ended, in one word, as `fedavg status` has it.
    pub phase: &'static str,
    /// The round that is open, or else the last one; 0 before the first.
    pub round: RoundId,
    /// The version of its model.
    pub version: ModelVersion,
    /// The versions that are kept.
    pub versions: Vec<ModelVersion>,
    /// The accepted reports of its open round.
    pub reports: usize,
}

/// A worker that is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct KeptWorker {
    /// Its number.
    pub worker: WorkerId,
    /// Its name.
    pub name: String,
    /// Whether it was there.
    pub state: WorkerState,
}

/// Something that is wrong with a state folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StateProblem {
    /// The file: a path in the folder.
    pub file: String,
    /// What is wrong with it.
    pub problem: String,
    /// What is lost by it.
    pub cost: String,
}

impl StateProblem {
    pub(super) fn new(
        file: impl Into<String>,
        problem: impl Into<String>,
        cost: impl Into<String>,
    ) -> Self {
        Self {
            file: file.into(),
            problem: problem.into(),
            cost: cost.into(),
        }
    }
}

impl fmt::Display for StateProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}; {}", self.file, self.problem, self.cost)
    }
}
