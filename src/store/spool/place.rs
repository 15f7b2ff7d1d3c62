//! What uploads and stored reports need of their spool: its folder, its open files, its limits.

use super::{handles::Handles, rounds::Rounds};

/// What a [`FileSpool`](super::FileSpool) may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileSpoolConfig {
    /// The most stored reports that are open at once; at least 1. Uploads are open beside them.
    pub max_open: usize,
    /// After how many bytes of an upload they are brought to the disk, so that its end does not wait for all of them;
    /// 0: at its end alone.
    pub sync_every: u64,
    /// How many bytes of small pieces an upload gathers before it writes them.
    pub gather: usize,
}

impl Default for FileSpoolConfig {
    fn default() -> Self {
        Self {
            max_open: 256,
            sync_every: 32 << 20,
            gather: 256 << 10,
        }
    }
}

/// What uploads and stored reports need of their spool.
pub(super) struct Place {
    pub config: FileSpoolConfig,
    pub rounds: Rounds,
    pub handles: Handles,
}
