//! Why a task has no result.

use super::TrainError;
use crate::{
    report::Refusal,
    transport::{Response, TransportError},
};

/// Why a task has no result.
pub(super) enum Failure {
    /// The coordinator says no: there is nothing more to do.
    Refused(Refusal),
    /// This worker can't do it: the coordinator is told.
    Unable(String),
    /// The task was cancelled.
    Dropped,
}

impl Failure {
    /// What an answer means that is not the one that was asked for.
    pub fn of_answer(response: Response) -> Self {
        match response {
            Response::Refused(refusal) => Self::Refused(refusal),
            other => Self::Unable(unexpected(&other).to_string()),
        }
    }
}

impl From<TrainError> for Failure {
    fn from(error: TrainError) -> Self {
        match error {
            TrainError::Cancelled => Self::Dropped,
            other => Self::Unable(other.to_string()),
        }
    }
}

/// An answer that belongs to another question, as an error.
pub(super) fn unexpected(response: &Response) -> TransportError {
    TransportError::Protocol(
        format!("an answer that does not belong to the question: {response:?}").into(),
    )
}
