//! The folders of rounds: made with the first upload, durable with the first report, gone with the last.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    disk::{self, Site},
    ids::{JobId, RoundId},
    report::SpoolKey,
    store::folder::{DataFolder, job_folder, make_in, private},
};

pub(super) struct Rounds {
    folder: Arc<DataFolder>,
    /// Those whose own entry in their job's folder is on the disk.
    durable: Mutex<BTreeSet<(JobId, RoundId)>>,
}

impl Rounds {
    pub fn new(folder: Arc<DataFolder>) -> Self {
        Self {
            folder,
            durable: Mutex::default(),
        }
    }

    pub fn folder(&self) -> &DataFolder {
        &self.folder
    }

    /// The file of a stored report.
    pub fn stored(&self, key: SpoolKey) -> PathBuf {
        self.place(key, "report")
    }

    /// The file of what is noted of an upload beside its bytes.
    pub fn notes(&self, key: SpoolKey) -> PathBuf {
        self.place(key, "resume")
    }

    /// A new file for an upload.
    pub fn create(&self, key: SpoolKey) -> (PathBuf, io::Result<File>) {
        let path = self.place(key, "part");
        let file = make_in(&self.round(key.job, key.round), || {
            private().create_new(true).open(&path)
        });
        (path, file)
    }

    /// Gives a file, whose bytes are on the disk, the name of a stored report, durably.
    pub fn keep(&self, key: SpoolKey, part: &mut PathBuf) -> io::Result<()> {
        let path = self.stored(key);
        disk::rename(Site::ReportRename, part, &path)?;
        // At once: if the folder can't be synced, the upload fails and removes the file by the name that it has now.
        *part = path;
        let round = (key.job, key.round);
        disk::sync_folder(Site::ReportRoundSync, &self.round(key.job, key.round))?;
        // Once for each round: the later reports are in a folder whose own entry is on the disk already.
        if !self.durable().contains(&round) {
            let job = job_folder(&self.folder.spool(), key.job);
            disk::sync_folder(Site::ReportJobSync, &job)?;
            disk::sync_folder(Site::ReportsSync, &self.folder.spool())?;
            self.durable().insert(round);
        }
        Ok(())
    }

    /// Removes a file, and the folders that are empty then. A folder that is still in use is not empty, and stays.
    pub fn remove(&self, key: SpoolKey, file: &Path) {
        // Before the file: a folder that is created later under this name must not count as durable.
        self.durable().remove(&(key.job, key.round));
        let round = self.round(key.job, key.round);
        let job = job_folder(&self.folder.spool(), key.job);
        let removed = disk::remove_file(Site::ReportRemove, file)
            .and_then(|()| disk::remove_folder(Site::ReportRoundRemove, &round))
            .and_then(|()| disk::remove_folder(Site::ReportJobRemove, &job));
        match removed {
            Err(error) if !is_expected(&error) => {
                tracing::warn!(file = %file.display(), %error, "a file of the spool stays behind");
            }
            _ => {}
        }
    }

    fn round(&self, job: JobId, round: RoundId) -> PathBuf {
        job_folder(&self.folder.spool(), job).join(format!("round-{round}"))
    }

    fn place(&self, key: SpoolKey, ending: &str) -> PathBuf {
        let SpoolKey { client, upload, .. } = key;
        let name = format!("client-{client}-{upload}.{ending}");
        self.round(key.job, key.round).join(name)
    }

    fn durable(&self) -> MutexGuard<'_, BTreeSet<(JobId, RoundId)>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Others have files there, or were faster.
fn is_expected(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound
    )
}
