//! Why a job is refused before it starts.

use std::borrow::Cow;

use thiserror::Error;

use crate::strategy::CatalogueError;

/// What is wrong with a job's specification.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field} {problem}")]
pub struct JobError {
    /// The field, as in TOML: `training.lr`.
    pub field: Cow<'static, str>,
    /// What is wrong with it.
    pub problem: String,
}

impl JobError {
    /// A problem of a field.
    pub fn new(field: impl Into<Cow<'static, str>>, problem: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            problem: problem.into(),
        }
    }
}

impl From<CatalogueError> for JobError {
    fn from(error: CatalogueError) -> Self {
        Self::new(format!("strategy.{}", error.key), error.problem)
    }
}
