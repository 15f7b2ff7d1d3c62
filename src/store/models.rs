//! Global models in files: a version is a folder that appears whole, with the strategy's state, or not at all.
//!
//! | in `models/job-J/vN/` of the [`DataFolder`] | what |
//! |---|---|
//! | `model.safetensors` | the values as they are |
//! | `sent.safetensors` | the body that workers get, if it is not the whole model as it is |
//! | `frozen.safetensors` | the frozen tensors, if there are any |
//! | `state.json`, `state-NAME.safetensors` | the strategy's state, if it has one: numbers, and a file for each tensor |
//!
//! While it is written, the folder's name is `vN.K.next`. If `vN` is there already, it becomes `vN.K.old` for the moment
//! between two renames: after a crash right then, that one is the version.

mod files;
mod state;
mod stored;
mod writer;

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use writer::Writer;

use super::{
    DataFolder, ModelForm, ModelStore, ModelWriter, StoreError,
    folder::{failed, job_folder, make_in, sync_folder},
};
use crate::ids::{JobId, ModelVersion};

/// Global models in files of a [`DataFolder`]. Every method may wait for the disk.
#[derive(Clone)]
pub struct FileModels(Arc<Inner>);

impl fmt::Debug for FileModels {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FileModels").finish_non_exhaustive()
    }
}

struct Inner {
    folder: Arc<DataFolder>,
    /// Numbers the folders that are written: two attempts at one version don't meet.
    next: AtomicU64,
    /// Jobs whose folder is known to be on the disk. Held while a version is put in its place.
    durable: Mutex<BTreeSet<JobId>>,
}

impl FileModels {
    /// The models of this folder. There is one such store at a time.
    pub fn new(folder: Arc<DataFolder>) -> Self {
        Self(Arc::new(Inner {
            folder,
            next: AtomicU64::new(0),
            durable: Mutex::default(),
        }))
    }
}

impl ModelStore for FileModels {
    /// A version of an int8 model is written in blocks that cut no group of [`crate::parameters::GROUP`] values, as those of
    /// [`crate::parameters::Layout::blocks`] do; others are a [`crate::parameters::BlockError::Unwritable`].
    fn begin(
        &self,
        job: JobId,
        version: ModelVersion,
        form: &ModelForm,
    ) -> Result<Box<dyn ModelWriter>, StoreError> {
        let next = Unfinished::create(self.0.clone(), job, version)?;
        Ok(Box::new(Writer::begin(next, form)?))
    }

    fn remove(&self, job: JobId, version: Option<ModelVersion>) {
        let folder = self.0.job(job);
        let path = match version {
            Some(version) => folder.join(format!("v{version}")),
            None => {
                self.0.durable().remove(&job);
                folder
            }
        };
        remove_tree(&path);
    }
}

impl Inner {
    fn job(&self, job: JobId) -> PathBuf {
        job_folder(&self.folder.models(), job)
    }

    fn durable(&self) -> MutexGuard<'_, BTreeSet<JobId>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The folder of a version while it is written. Dropped before it is published, it is removed.
struct Unfinished {
    models: Arc<Inner>,
    job: JobId,
    version: ModelVersion,
    attempt: u64,
    path: PathBuf,
    published: bool,
}

impl Unfinished {
    fn create(models: Arc<Inner>, job: JobId, version: ModelVersion) -> Result<Self, StoreError> {
        let attempt = models.next.fetch_add(1, Ordering::Relaxed);
        let folder = models.job(job);
        let path = folder.join(format!("v{version}.{attempt}.next"));
        make_in(&folder, || fs::create_dir(&path)).map_err(|error| failed(&path, error))?;
        Ok(Self {
            models,
            job,
            version,
            attempt,
            path,
            published: false,
        })
    }

    fn folder(&self) -> &DataFolder {
        &self.models.folder
    }

    /// Puts it in its version's place; its files are on the disk already. Returns that place.
    fn publish(mut self) -> Result<PathBuf, StoreError> {
        let folder = self.models.job(self.job);
        let place = folder.join(format!("v{}", self.version));
        let old = folder.join(format!("v{}.{}.old", self.version, self.attempt));
        sync_folder(&self.path).map_err(|error| failed(&self.path, error))?;
        let models = self.models.clone();
        let mut durable = models.durable();
        let replaced = match fs::rename(&place, &old) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(failed(&place, error)),
        };
        let renamed = fs::rename(&self.path, &place);
        let is_there = renamed.is_ok();
        let appeared = renamed.and_then(|()| sync_folder(&folder)).and_then(|()| {
            if durable.contains(&self.job) {
                Ok(())
            } else {
                sync_folder(&models.folder.models())
            }
        });
        if let Err(error) = appeared {
            if is_there {
                remove_tree(&place);
            }
            if replaced && let Err(error) = fs::rename(&old, &place) {
                tracing::warn!(folder = %old.display(), %error, "a model stays under another name");
            }
            return Err(failed(&place, error));
        }
        durable.insert(self.job);
        drop(durable);
        self.published = true;
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
            // Before the job's folder: one that is made again later is not taken for a durable one.
            self.models.durable().remove(&self.job);
            // It stays if other versions are in it.
            let _ = fs::remove_dir(self.models.job(self.job));
        }
    }
}

/// Removes a folder and what is in it, if it is there.
fn remove_tree(path: &Path) {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(folder = %path.display(), %error, "a model stays behind");
        }
        _ => {}
    }
}
