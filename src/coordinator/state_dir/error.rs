//! Why a state folder can't be looked at, copied or made.

use thiserror::Error;

use super::report::StateProblem;
use crate::{
    Cause,
    store::{StoreError, journal::JournalError},
    words::plural,
};

/// Why a state folder can't be looked at, copied or made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StateDirError {
    /// A coordinator runs on it.
    #[error("a coordinator runs on {path}")]
    InUse {
        /// The folder.
        path: String,
    },
    /// It is another folder.
    #[error("{path} is no coordinator's state folder: it has no journal.db")]
    NoState {
        /// The folder.
        path: String,
    },
    /// Something is in the folder that is to be filled.
    #[error(
        "{path} is not empty: give a folder that is empty or not there. If an import into it was killed, \"state check\" says whether \
         all of it had come"
    )]
    NotEmpty {
        /// The folder.
        path: String,
    },
    /// What would be copied or put in place is damaged.
    #[error("{}: {}", plural(.0.len(), "problem"), .0.first().map(ToString::to_string).unwrap_or_default())]
    Damaged(Vec<StateProblem>),
    /// The journal can't be read or written.
    #[error(transparent)]
    Journal(JournalError),
    /// The operating system refuses.
    #[error("{path}: {problem}")]
    Io {
        /// The file or folder.
        path: String,
        /// What went wrong.
        #[source]
        problem: Cause,
    },
}

impl From<JournalError> for StateDirError {
    fn from(error: JournalError) -> Self {
        Self::Journal(error)
    }
}

impl From<StoreError> for StateDirError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::InUse { path } => Self::InUse { path },
            StoreError::Io { path, problem } => Self::Io { path, problem },
            // Only models have others.
            other => Self::Io {
                path: "models".to_string(),
                problem: Cause::of(other),
            },
        }
    }
}

/// What the operating system says about a path.
pub(super) fn failed(path: &std::path::Path, error: std::io::Error) -> StateDirError {
    StateDirError::Io {
        path: path.display().to_string(),
        problem: Cause::of(error),
    }
}
