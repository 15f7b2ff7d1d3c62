//! Where the logs of jobs put what is not in memory: files in a coordinator's folder, or files without a name.

use std::{io, sync::Arc};

use super::spill::SpillFile;
use crate::{
    disk::{self, Site},
    store::{
        StoreError,
        folder::{DataFolder, failed, job_folder, job_folders, make_in, private},
        journal::Stream,
    },
};

/// Makes the files into which jobs' logs spill. Nothing is made before a log needs it.
#[derive(Debug, Clone, Default)]
pub struct LogFiles(Option<Arc<DataFolder>>);

impl LogFiles {
    /// Files `logs/job-J/NAME.jsonl` in this folder. Each is removed with its job.
    pub fn new(folder: Arc<DataFolder>) -> Self {
        Self(Some(folder))
    }

    /// Files without a name in the system's folder for temporary files (`TMPDIR`, or else `/tmp`).
    ///
    /// A coordinator that keeps all else in memory has no folder of its own, and its logs must be bounded, too: a job that runs for
    /// weeks logs more than memory holds. The operating system removes such a file with the process, however that ends.
    pub fn temporary() -> Self {
        Self(None)
    }

    /// Removes what an earlier process left. Called at the start, before any log needs a file.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub(crate) fn clear(&self) -> Result<(), StoreError> {
        let Some(folder) = &self.0 else {
            return Ok(());
        };
        for (_, path) in job_folders(&folder.logs())? {
            disk::remove_tree(Site::OldLogRemove, &path).map_err(|error| failed(&path, error))?;
        }
        Ok(())
    }

    /// An empty file for one log.
    pub(super) fn create(&self, stream: Stream, name: &str) -> io::Result<SpillFile> {
        let Some(folder) = &self.0 else {
            return Ok(SpillFile::unnamed(tempfile::tempfile()?));
        };
        let parent = match stream {
            Stream::Job(job) => job_folder(&folder.logs(), job),
            Stream::Coordinator => folder.logs(),
        };
        let path = parent.join(format!("{name}.jsonl"));
        let file = make_in(&parent, || {
            private().create(true).truncate(true).open(&path)
        })?;
        Ok(SpillFile::named(file, path, folder.clone()))
    }
}
