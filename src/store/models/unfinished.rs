//! The folder of a version while it is written, and the step that puts it in its place.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    disk::{self, Site},
    ids::{JobId, ModelVersion},
    store::{
        DataFolder, StoreError,
        folder::{failed, job_folder, make_in},
    },
};

/// What all handles of one store share.
pub(super) struct Models {
    pub folder: Arc<DataFolder>,
    /// Numbers the folders that are written: two attempts at one version don't meet.
    pub next: AtomicU64,
    /// Jobs whose folder is known to be on the disk. Held while a version is put in its place.
    pub durable: Mutex<BTreeSet<JobId>>,
}

impl Models {
    pub fn job(&self, job: JobId) -> PathBuf {
        job_folder(&self.folder.models(), job)
    }

    /// The folder of a version that is published.
    pub fn place(&self, job: JobId, version: ModelVersion) -> PathBuf {
        self.job(job).join(format!("v{version}"))
    }

    pub fn durable(&self) -> MutexGuard<'_, BTreeSet<JobId>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The folder of a version while it is written. Dropped before it is published, it is removed.
pub(super) struct Unfinished {
    models: Arc<Models>,
    job: JobId,
    version: ModelVersion,
    attempt: u64,
    pub path: PathBuf,
    published: bool,
}

impl Unfinished {
    pub fn create(
        models: Arc<Models>,
        job: JobId,
        version: ModelVersion,
    ) -> Result<Self, StoreError> {
        let attempt = models.next.fetch_add(1, Ordering::Relaxed);
        let folder = models.job(job);
        let path = folder.join(format!("v{version}.{attempt}.next"));
        make_in(&folder, || disk::private_folder().create(&path))
            .map_err(|error| failed(&path, error))?;
        Ok(Self {
            models,
            job,
            version,
            attempt,
            path,
            published: false,
        })
    }

    pub fn folder(&self) -> &DataFolder {
        &self.models.folder
    }

    /// Puts it in its version's place; its files are on the disk already. Returns that place.
    pub fn publish(mut self) -> Result<PathBuf, StoreError> {
        let folder = self.models.job(self.job);
        let place = self.models.place(self.job, self.version);
        let old = folder.join(format!("v{}.{}.old", self.version, self.attempt));
        // Before the rename: after a crash, a folder with the version's name must have all of its files.
        disk::sync_folder(Site::VersionSync, &self.path)
            .map_err(|error| failed(&self.path, error))?;
        let models = self.models.clone();
        // Held from the first rename to the last: two attempts at one version would otherwise move each other's
        // folders. The guard is a local, so it is dropped before `self`, whose drop takes the same lock.
        let mut durable = models.durable();
        let replaced = match disk::rename(Site::VersionAsideRename, &place, &old) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(failed(&place, error)),
        };
        let renamed = disk::rename(Site::VersionRename, &self.path, &place);
        let is_there = renamed.is_ok();
        let synced = renamed.and_then(|()| disk::sync_folder(Site::ModelJobSync, &folder));
        let appeared = synced.and_then(|()| {
            if durable.contains(&self.job) {
                Ok(())
            } else {
                disk::sync_folder(Site::ModelsSync, &models.folder.models())
            }
        });
        if let Err(error) = appeared {
            // It may not survive a crash, so it must not be there at all: the caller is told that nothing has
            // appeared.
            if is_there {
                remove_tree(&place);
            }
            if replaced && let Err(error) = disk::rename(Site::VersionBackRename, &old, &place) {
                tracing::warn!(folder = %old.display(), %error, "a model stays under another name");
            }
            return Err(failed(&place, error));
        }
        durable.insert(self.job);
        drop(durable);
        self.published = true;
        // Last: until the new version is durable, the old one is what a crash would leave.
        if replaced {
            remove_tree(&old);
        }
        Ok(place)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.published {
            remove_tree(&self.path);
            // Before the job's folder: one that is made again later must not count as durable.
            self.models.durable().remove(&self.job);
            // It stays if other versions are in it.
            let folder = self.models.job(self.job);
            let _ = disk::remove_folder(Site::ModelJobRemove, &folder);
        }
    }
}

/// Removes a folder and what is in it, if it is there.
pub(super) fn remove_tree(path: &Path) {
    match disk::remove_tree(Site::VersionRemove, path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(folder = %path.display(), %error, "a model stays behind");
        }
        _ => {}
    }
}
