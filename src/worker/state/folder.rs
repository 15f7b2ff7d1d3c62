//! A worker's folder: one worker's at a time.

use std::{
    collections::BTreeSet,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    StateError,
    client_files::ClientFiles,
    disk::{make_folder, remove, write_bytes},
    names::folder_name,
};
use crate::{
    disk::Site,
    ids::{ClientId, CoordinatorId, JobId},
};

/// The version of what is in the folder.
const VERSION: u32 = 1;
const VERSION_FILE: &str = "version";
const JOBS: &str = "jobs";
const JOB: &str = "job-";

/// How many workers of one name find a folder.
const MOST_NAMESAKES: u32 = 1024;

/// A folder on a disk, which no other worker has for as long as this value lives.
#[derive(Debug)]
pub(in crate::worker) struct StateFolder {
    path: PathBuf,
    /// The worker's name, as it is in the folder's.
    name: String,
    /// The jobs that have a folder.
    jobs: Mutex<BTreeSet<JobId>>,
    /// The lock goes with it.
    _lock: File,
}

impl StateFolder {
    /// Takes the folder of a worker of this name at this coordinator, below `base`. If another process has it, takes that of
    /// `NAME-2`, `NAME-3` and so on. A worker with data of its own is known by its name: it gets no other one.
    pub fn open(
        base: &Path,
        coordinator: &CoordinatorId,
        name: &str,
        is_local: bool,
    ) -> Result<Self, StateError> {
        let place = base.join(folder_name(&coordinator.0));
        for number in 1..=MOST_NAMESAKES {
            let candidate = match number {
                1 => name.to_string(),
                number => format!("{name}-{number}"),
            };
            let path = place.join(format!("worker-{}", folder_name(&candidate)));
            if let Some(folder) = Self::take(path.clone(), candidate)? {
                if number > 1 {
                    tracing::info!(
                        name,
                        "a worker of this name runs on this machine already: this one is {:?}",
                        folder.name
                    );
                }
                return Ok(folder);
            }
            if is_local {
                return Err(StateError::NameInUse {
                    name: name.to_string(),
                    path: path.display().to_string(),
                });
            }
        }
        Err(StateError::TooMany {
            name: name.to_string(),
            count: MOST_NAMESAKES,
        })
    }

    /// None if another process has it.
    fn take(path: PathBuf, name: String) -> Result<Option<Self>, StateError> {
        make_folder(&path).map_err(|error| StateError::about(&path, error))?;
        let Some(lock) = lock(&path)? else {
            return Ok(None);
        };
        check_version(&path)?;
        let jobs = jobs_in(&path.join(JOBS))?;
        Ok(Some(Self {
            path,
            name,
            jobs: Mutex::new(jobs),
            _lock: lock,
        }))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The worker's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The files of a client. Nothing is made before something is written.
    pub fn client(&self, job: JobId, client: ClientId) -> ClientFiles {
        let folder = self.job(job).join(format!("client-{client}"));
        ClientFiles::new(folder)
    }

    /// Notes that a job has a folder from now on.
    pub fn note_job(&self, job: JobId) {
        self.jobs().insert(job);
    }

    /// Whether anything is kept of a job that is not among these.
    pub fn has_others(&self, running: &[JobId]) -> bool {
        self.jobs().iter().any(|job| !running.contains(job))
    }

    /// Removes what is kept of jobs that are not among these; returns how many there were. What can't be removed is a warning.
    pub fn remove_others(&self, running: &[JobId]) -> usize {
        let gone: Vec<_> = self
            .jobs()
            .extract_if(.., |job| !running.contains(job))
            .collect();
        for job in &gone {
            let path = self.job(*job);
            if let Err(error) = remove(Site::WorkerJobRemove, &path) {
                tracing::warn!(folder = %path.display(), %error, "can't remove what was kept of a job that has ended");
            }
        }
        gone.len()
    }

    fn job(&self, job: JobId) -> PathBuf {
        self.path.join(JOBS).join(format!("{JOB}{job}"))
    }

    fn jobs(&self) -> MutexGuard<'_, BTreeSet<JobId>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock(folder: &Path) -> Result<Option<File>, StateError> {
    let path = folder.join("lock");
    let file = File::options()
        .create(true)
        // The file of the worker that has the lock must not be changed by one that has not.
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| StateError::about(&path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(StateError::about(&path, error)),
    }
}

/// Refuses a folder of a later version; a new folder gets this program's.
fn check_version(folder: &Path) -> Result<(), StateError> {
    let path = folder.join(VERSION_FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Its name is durable with all else that the folder gets: whatever state there is, its version is there, too.
            let written = write_bytes(&path, format!("{VERSION}\n").as_bytes());
            return written.map_err(|error| StateError::about(&path, error));
        }
        Err(error) => return Err(StateError::about(&path, error)),
    };
    match text.trim().parse::<u32>() {
        Ok(version) if version <= VERSION => Ok(()),
        // What is not a number was not written by this version either.
        _ => Err(StateError::Newer {
            path: folder.display().to_string(),
            found: text.trim().chars().take(40).collect(),
            known: VERSION,
        }),
    }
}

fn jobs_in(folder: &Path) -> Result<BTreeSet<JobId>, StateError> {
    let mut jobs = BTreeSet::new();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(jobs),
        Err(error) => return Err(StateError::about(folder, error)),
    };
    for entry in entries {
        let entry = entry.map_err(|error| StateError::about(folder, error))?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(JOB));
        if let Some(job) = number.and_then(|number| number.parse().ok()) {
            jobs.insert(job);
        }
    }
    Ok(jobs)
}

#[cfg(test)]
mod tests;
