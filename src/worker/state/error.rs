//! Why a worker can't keep its state.

use std::{io, path::Path};

use thiserror::Error;

use crate::Cause;

/// Why a worker can't keep its state.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StateError {
    /// The folder is of a later version of this program.
    #[error(
        "the state in {path} is of version {found}, and this program reads version {known}: start a newer program, or name \
         another folder"
    )]
    Newer {
        /// The folder.
        path: String,
        /// What its file `version` says.
        found: String,
        /// The version of this program.
        known: u32,
    },
    /// A worker with data of its own has the name already.
    #[error(
        "a worker with the name {name:?} runs on this machine (its state is in {path}), and a worker with data of its own is \
         known by its name: choose another name"
    )]
    NameInUse {
        /// The name.
        name: String,
        /// The folder.
        path: String,
    },
    /// All folders for this name are in use.
    #[error(
        "{count} workers with the name {name:?} run on this machine already: choose another name"
    )]
    TooMany {
        /// The name.
        name: String,
        /// How many folders were tried.
        count: u32,
    },
    /// The transport does not say which coordinator it leads to.
    #[error(
        "a worker keeps its state by the coordinator's identity, and this transport does not tell it: implement \
         Transport::coordinator, or keep no state"
    )]
    NoIdentity,
    /// The operating system refuses.
    #[error("{0}")]
    Io(#[source] Cause),
}

impl StateError {
    /// What the operating system says about a path.
    pub(super) fn about(path: &Path, error: io::Error) -> Self {
        Self::Io(Cause::about(path.display(), error))
    }
}
