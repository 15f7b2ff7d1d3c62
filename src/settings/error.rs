//! Why a setting is refused.

use thiserror::Error;

/// A setting that is out of its range.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field} {problem}")]
pub struct SettingError {
    /// Its name.
    pub field: &'static str,
    /// What is wrong, and what is right.
    pub problem: String,
}

impl SettingError {
    pub(super) fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self {
            field,
            problem: problem.into(),
        }
    }
}
