//! Why a journal fails.

use thiserror::Error;

use crate::Cause;

/// Why the journal can't be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The storage refuses.
    #[error("the journal {path}: {problem}")]
    Storage {
        /// Where it is.
        path: String,
        /// What went wrong.
        #[source]
        problem: Cause,
    },
    /// It was written by a newer version of this program.
    #[error(
        "the journal {path} was written by a newer version: its form is {found}, and this program knows {known}; use that version"
    )]
    Newer {
        /// Where it is.
        path: String,
        /// The form that it has.
        found: i64,
        /// The newest form that this program knows.
        known: i64,
    },
    /// Another process has written to it.
    #[error(
        "another process has written to the journal: this coordinator stops, so that no two act for one state"
    )]
    Conflict,
    /// It is closed.
    #[error("the journal is closed")]
    Closed,
}
