//! Why a job is refused before it starts.

use thiserror::Error;

/// What is wrong with a job's specification.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field} {problem}")]
pub struct JobError {
    /// The field, as in TOML: `training.lr`.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

impl JobError {
    /// A problem of a field.
    pub fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self {
            field,
            problem: problem.into(),
        }
    }
}
