//! A coordinator's data folder: one coordinator's at a time, and what the file stores do with the operating system.
//!
//! | in it | what |
//! |---|---|
//! | `lock` | locked for as long as a coordinator has the folder |
//! | `spool/job-J/round-R/` | reports, see [`super::FileSpool`] |
//! | `models/job-J/` | global models, see [`super::FileModels`] |
//! | `logs/job-J/` | what jobs' logs don't have in memory, see [`super::LogFiles`] |

#[cfg(test)]
use std::sync::{Mutex, PoisonError};
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::StoreError;
use crate::{
    Cause,
    disk::{self, Site},
    ids::JobId,
    parameters::BlockError,
    report::SpoolError,
};

const SPOOL: &str = "spool";
const MODELS: &str = "models";
const LOGS: &str = "logs";
const JOB: &str = "job-";
const LOCK: &str = "lock";
/// The file of the time at which the coordinator was alive last.
pub(super) const ALIVE: &str = "alive";

/// A folder on a disk, which no other coordinator has for as long as this value or a store over it lives.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    /// The lock goes with it. None: the folder is only read.
    _lock: Option<File>,
    /// Bytes that can still be written before the disk is full.
    #[cfg(test)]
    pub(crate) room: Mutex<Option<u64>>,
}

impl DataFolder {
    /// Takes a folder, which is made if there is none. What is in it stays.
    ///
    /// # Errors
    ///
    /// [`StoreError::InUse`] if another coordinator has it, [`StoreError::Io`] if the operating system refuses.
    pub fn open(path: impl AsRef<Path>) -> Result<Arc<Self>, StoreError> {
        let path = path.as_ref();
        disk::make_folder(Site::FolderAboveSync, path, &disk::private_folder())
            .map_err(|error| failed(path, error))?;
        let lock = lock(path)?;
        for part in [SPOOL, MODELS, LOGS] {
            let part = path.join(part);
            disk::make_private(&part).map_err(|error| failed(&part, error))?;
        }
        // The parts must be there after a power failure, or files in them could not be found.
        disk::sync_folder(Site::FolderPartsSync, path).map_err(|error| failed(path, error))?;
        Ok(Arc::new(Self {
            path: path.to_path_buf(),
            _lock: Some(lock),
            #[cfg(test)]
            room: Mutex::new(None),
        }))
    }

    /// A folder that is there, to be read alone: nothing in it is made or changed.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if it is not there.
    #[cfg(feature = "sqlite")]
    pub(crate) fn to_read(path: impl AsRef<Path>) -> Result<Arc<Self>, StoreError> {
        let path = path.as_ref();
        fs::read_dir(path).map_err(|error| failed(path, error))?;
        Ok(Arc::new(Self {
            path: path.to_path_buf(),
            _lock: None,
            #[cfg(test)]
            room: Mutex::new(None),
        }))
    }

    /// The same, and no coordinator starts on it as long as this value lives.
    ///
    /// # Errors
    ///
    /// [`StoreError::InUse`] if a coordinator has it, and as [`DataFolder::to_read`].
    #[cfg(feature = "sqlite")]
    pub(crate) fn to_read_alone(path: impl AsRef<Path>) -> Result<Arc<Self>, StoreError> {
        let path = path.as_ref();
        fs::read_dir(path).map_err(|error| failed(path, error))?;
        // A coordinator makes the file before anything else: without it there never was one.
        let lock = match File::options().write(true).open(path.join(LOCK)) {
            Ok(file) => Some(taken(path, file)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(&path.join(LOCK), error)),
        };
        Ok(Arc::new(Self {
            path: path.to_path_buf(),
            _lock: lock,
            #[cfg(test)]
            room: Mutex::new(None),
        }))
    }

    /// Puts aside what version 0.1 left, which had no journal: its jobs ended with their coordinator, and somebody may still want
    /// their models. Returns where these are, if there were any.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`].
    pub fn put_aside_unjournaled(&self) -> Result<Option<PathBuf>, StoreError> {
        let models = self.models();
        let has_journal = self.path.join("journal.db").exists() || had_journal(&self.path);
        if has_journal || job_folders(&models)?.is_empty() {
            return Ok(None);
        }
        let aside = self.path.join("models-of-0.1");
        // Durable with the journal's own entry, which is in the same folder. A power failure before that only has this done again.
        disk::rename(Site::AsideRename, &models, &aside)
            .and_then(|()| disk::private_folder().create(&models))
            .map_err(|error| failed(&aside, error))?;
        Ok(Some(aside))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn spool(&self) -> PathBuf {
        self.path.join(SPOOL)
    }

    pub(super) fn models(&self) -> PathBuf {
        self.path.join(MODELS)
    }

    pub(super) fn logs(&self) -> PathBuf {
        self.path.join(LOGS)
    }

    /// Writes all of `bytes` at a place of a file of this folder.
    pub(super) fn write_at(
        &self,
        site: Site,
        (file, path): (&File, &Path),
        bytes: &[u8],
        offset: u64,
    ) -> io::Result<()> {
        #[cfg(test)]
        if let Some(room) = &mut *self.room.lock().unwrap_or_else(PoisonError::into_inner) {
            let left = room.checked_sub(bytes.len() as u64);
            *room = left.ok_or(io::ErrorKind::StorageFull)?;
        }
        disk::write_at(site, file, path, bytes, offset)
    }
}

/// A job's folder below one of the parts.
pub(super) fn job_folder(part: &Path, job: JobId) -> PathBuf {
    part.join(format!("{JOB}{job}"))
}

/// How a file is made that its owner alone may read: models, reports and seeds tell of the data behind them.
pub(super) fn private() -> OpenOptions {
    let mut options = File::options();
    options.read(true).write(true).mode(0o600);
    options
}

fn lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join(LOCK);
    let file = private()
        .create(true)
        // The file of the coordinator that has the lock must not be changed by one that has not.
        .truncate(false)
        .open(&path)
        .map_err(|error| failed(&path, error))?;
    taken(folder, file)
}

/// The file of a folder's lock, locked.
fn taken(folder: &Path, file: File) -> Result<File, StoreError> {
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse {
            path: folder.display().to_string(),
        }),
        Err(TryLockError::Error(error)) => Err(failed(&folder.join(LOCK), error)),
    }
}

/// The folders of jobs below one of the parts. Anything else in there is not ours: the operator may have pointed `--state-dir`
/// at a folder with other things.
pub(super) fn job_folders(part: &Path) -> Result<Vec<(JobId, PathBuf)>, StoreError> {
    let mut folders = Vec::new();
    for name in names_in(part)? {
        let job = name.strip_prefix(JOB).and_then(|job| job.parse().ok());
        if let Some(job) = job {
            folders.push((job, part.join(name)));
        }
    }
    Ok(folders)
}

/// The names of what is in a folder, in order. A name that is not text is not ours.
pub(super) fn names_in(folder: &Path) -> Result<Vec<String>, StoreError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| failed(folder, error))? {
        let entry = entry.map_err(|error| failed(folder, error))?;
        names.extend(entry.file_name().into_string().ok());
    }
    names.sort_unstable();
    Ok(names)
}

/// Whether there was a journal in a coordinator's folder: this file is made right after it, and only then.
pub(crate) fn had_journal(path: &Path) -> bool {
    path.join(ALIVE).exists()
}

/// Makes something in a folder, which is made too. Empty folders are removed by others at any time, so that it may take
/// more than one attempt.
pub(super) fn make_in<T>(folder: &Path, make: impl Fn() -> io::Result<T>) -> io::Result<T> {
    const ATTEMPTS: usize = 100;
    let mut result = make();
    for _ in 0..ATTEMPTS {
        match &result {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match disk::make_private(folder) {
                    // A parent may have been removed while its child was made: that is only one more attempt.
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => result = make(),
                }
            }
            _ => break,
        }
    }
    result
}

/// What went wrong, with the path, as the error of each seam.
pub(super) fn failed(path: &Path, error: io::Error) -> StoreError {
    let is_full = is_full(&error);
    let (path, problem) = (path.display().to_string(), Cause::of(error));
    if is_full {
        StoreError::Full { path, problem }
    } else {
        StoreError::Io { path, problem }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

pub(super) fn storage(path: &Path, error: io::Error) -> SpoolError {
    SpoolError::Storage(Cause::about(path.display(), error))
}

pub(super) fn unreadable(path: &Path, error: io::Error) -> BlockError {
    BlockError::Unreadable(Cause::about(path.display(), error))
}

pub(super) fn unwritable(path: &Path, error: io::Error) -> BlockError {
    if is_full(&error) {
        BlockError::Full(Cause::about(path.display(), error))
    } else {
        BlockError::Unwritable(Cause::about(path.display(), error))
    }
}
