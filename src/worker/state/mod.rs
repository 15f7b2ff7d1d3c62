//! What a worker keeps on the disk, so that one that is killed and started again is the same worker.
//!
//! | below the folder | what |
//! |---|---|
//! | `COORDINATOR/worker-NAME/` | one worker's, by the coordinator's identity and the worker's name |
//! | `.../version` | the version of this form |
//! | `.../lock` | locked for as long as a worker has the folder |
//! | `.../registration.json` | who the worker is at the coordinator, with its token |
//! | `.../jobs/job-J/client-C/` | the states of a client, see [`ClientFiles`] |
//!
//! Nothing here knows a network, and nothing here decides which state counts: `memory` does.

mod client_files;
mod disk;
mod error;
mod folder;
mod names;
mod registration;
#[cfg(test)]
mod tests;

pub(super) use client_files::ClientFiles;
pub use error::StateError;
pub(super) use folder::StateFolder;
