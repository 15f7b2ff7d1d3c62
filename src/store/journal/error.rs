//! Why a journal fails.

use thiserror::Error;

use crate::Cause;

/// What to do about a journal that is of no use any more.
pub(crate) const WHAT_TO_DO: &str = "import the last export into another folder (\"fedavg-coordinator state import\"), or move this folder away to start \
     without its jobs; \"fedavg-coordinator state check\" lists what is damaged";

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
    /// What is in it can't be read any more.
    #[error("the journal {path} is damaged: {problem}; {advice}", advice = WHAT_TO_DO)]
    Damaged {
        /// Where it is.
        path: String,
        /// What is wrong with it.
        #[source]
        problem: Cause,
    },
    /// It is gone, and the rest of the folder is there.
    #[error(
        "the journal {path} is missing or empty, and a coordinator has used its folder: put the file back, or {advice}",
        advice = WHAT_TO_DO
    )]
    Lost {
        /// Where it was.
        path: String,
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
