//! Why a run has no result.

use std::io;

use thiserror::Error;

use super::result::SimulationResult;
use crate::{
    report::Refusal,
    transport::OperatorError,
    worker::{TrainError, WorkerError},
};

/// Why a run has no result.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SimulationError {
    /// The coordinator does not take the job.
    #[error("the job is refused: {0}")]
    Refused(#[source] Refusal),
    /// The job failed.
    #[error("the job failed: {reason}")]
    Failed {
        /// Why.
        reason: String,
        /// What there is of the run: its rounds, its log and the last model.
        result: Box<SimulationResult>,
    },
    /// The strategy's plan needs what the trainers can't do.
    #[error(
        "the strategy needs what the trainers can't do: they lack {lacks} (`TrainerFactory::capabilities` says what they can)"
    )]
    Unsuited {
        /// What they lack.
        lacks: String,
    },
    /// The dataset can't be read.
    #[error(transparent)]
    Dataset(TrainError),
    /// A recorded run can't be repeated from what was given.
    #[error("the run can't be repeated: {0}")]
    Replay(String),
    /// A worker ended.
    #[error("a worker ended")]
    Worker(#[source] WorkerError),
    /// A simulation has no workers with data of their own.
    #[error(
        "--partition local trains on the workers' own data, and a simulation has no such workers; choose another partition"
    )]
    LocalData,
    /// The job asks for a strategy that was not given.
    #[error(
        "the job names a custom strategy, and this program has none; `Simulation::strategy` gives it one"
    )]
    NoStrategy,
    /// A recorded run can't be repeated.
    #[error(
        "a run whose strategy goes by measured speeds can't be repeated: the record of its rounds does not have them"
    )]
    MeasuredStrategy,
    /// A recorded run can't be repeated.
    #[error(
        "a run with partition `proportional:measured` can't be repeated: who had which examples followed measured \
         speeds, which the record of its rounds does not have"
    )]
    MeasuredPartition,
    /// What the run left behind can't be read.
    #[error("the run's results can't be read")]
    Results(#[source] OperatorError),
    /// No threads could be started.
    #[error("can't start threads")]
    Runtime(#[source] io::Error),
}

impl From<OperatorError> for SimulationError {
    fn from(error: OperatorError) -> Self {
        match error {
            OperatorError::Refused(refusal) => Self::Refused(refusal),
            error => Self::Results(error),
        }
    }
}
