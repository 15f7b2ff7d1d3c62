//! What can go wrong in a strategy.

use thiserror::Error;

use crate::{parameters::BlockError, report::ReportError, words::IF_IT_DIVERGES};

/// Why a strategy could not do its part.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum StrategyError {
    /// The settings that a job gives are not ones of this strategy.
    #[error("the strategy's settings are not valid: {0}")]
    Settings(String),
    /// No cohort can be made of these clients.
    #[error("no round can be planned: {0}")]
    Plan(String),
    /// The reports can't be aggregated: all weights are zero, for example.
    #[error("the reports can't be aggregated: {0}")]
    Aggregate(String),
    /// The next model would have a value that is infinite or not a number.
    #[error(
        "training diverged: {tensor:?} would be {value} at index {index} of the next model; {IF_IT_DIVERGES}"
    )]
    Diverged {
        /// The tensor.
        tensor: String,
        /// The place in it, in row-major order.
        index: usize,
        /// The value.
        value: String,
    },
    /// The next model would have a BatchNorm variance below zero.
    #[error(
        "{tensor:?} would be {value} at index {index} of the next model, and no variance is negative; fold buffers with \
         coefficients that are not negative (`Inputs::with_buffers`)"
    )]
    NegativeVariance {
        /// The tensor.
        tensor: String,
        /// The place in it, in row-major order.
        index: usize,
        /// The value.
        value: String,
    },
    /// A report could not be read.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// The global model could not be read, or the next one not written.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// The state does not fit the model, or has a number that is not finite.
    #[error("the strategy's state is not valid: {0}")]
    State(String),
    /// An aggregation folded not exactly once.
    #[error(
        "the strategy called fold {calls} times in an aggregation: exactly one call makes a model"
    )]
    Folds {
        /// How often it did.
        calls: u32,
    },
    /// The strategy's own code panicked.
    #[error("the strategy panicked: {0}")]
    Panicked(String),
    /// The job was cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl From<serde_json::Error> for StrategyError {
    fn from(error: serde_json::Error) -> Self {
        Self::Settings(error.to_string())
    }
}
