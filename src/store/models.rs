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
mod leftovers;
mod state;
mod stored;
mod unfinished;
mod writer;

use std::{
    fmt,
    sync::{Arc, Mutex, atomic::AtomicU64},
};

pub(crate) use files::check_file;
use stored::FileModel;
use unfinished::{Models, Unfinished, remove_tree};
use writer::Writer;

use super::{
    DataFolder, ModelForm, ModelStore, ModelWriter, PublishedVersion, StoreError, StoredModel,
};
use crate::ids::{JobId, ModelVersion};

/// Global models in files of a [`DataFolder`]. Every method may wait for the disk.
#[derive(Clone)]
pub struct FileModels(Arc<Models>);

impl fmt::Debug for FileModels {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FileModels").finish_non_exhaustive()
    }
}

impl FileModels {
    /// The models of this folder. There is one such store at a time.
    pub fn new(folder: Arc<DataFolder>) -> Self {
        Self(Arc::new(Models {
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

    fn open(
        &self,
        job: JobId,
        version: ModelVersion,
        form: &ModelForm,
        published: &PublishedVersion,
    ) -> Result<Arc<dyn StoredModel>, StoreError> {
        let folder = self.0.place(job, version);
        Ok(Arc::new(FileModel::open(&folder, form, published)?))
    }

    fn verify(
        &self,
        job: JobId,
        version: ModelVersion,
        published: &PublishedVersion,
    ) -> Result<(), StoreError> {
        let folder = self.0.place(job, version);
        for file in &published.files {
            let path = folder.join(&file.name);
            check_file(&path, file).map_err(|problem| StoreError::Missing {
                what: path.display().to_string(),
                problem,
            })?;
        }
        Ok(())
    }

    fn retain(&self, keeps: &dyn Fn(JobId, ModelVersion) -> bool) -> Result<(), StoreError> {
        leftovers::remove(&self.0.folder, keeps)
    }

    fn remove(&self, job: JobId, version: Option<ModelVersion>) {
        let folder = self.0.job(job);
        let path = match version {
            Some(version) => self.0.place(job, version),
            None => {
                self.0.durable().remove(&job);
                folder
            }
        };
        remove_tree(&path);
    }
}
