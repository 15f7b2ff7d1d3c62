//! Keeps global models, and reports until their round closes: in memory, or in files.
//!
//! A version of the global model is written while it is folded, beside the one before, and appears in one atomic step,
//! together with the strategy's state. Nothing here knows jobs' rules; the coordinator says when.

#[cfg(feature = "sqlite")]
pub(crate) mod at_rest;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod folder;
pub mod journal;
mod log;
mod memory;
mod models;
mod spool;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

pub use folder::DataFolder;
#[cfg(feature = "sqlite")]
pub(crate) use journal::ReadJournal;
#[cfg(feature = "sqlite")]
pub use journal::SqliteJournal;
pub use journal::{Journal, MemoryJournal};
pub use log::LogFiles;
pub(crate) use log::{LogEntry, LogPage, LogPlace, WindowedLog};
pub use memory::MemoryModels;
pub use models::FileModels;
use serde::{Deserialize, Serialize};
pub use spool::{FileSpool, FileSpoolConfig};
use thiserror::Error;

use crate::{
    Cause,
    ids::{JobId, ModelVersion},
    parameters::{
        BlockError, BlockReader, BlockWriter, Digest, Encoding, Form, Layout, Parameters, Role,
        Roles, StoredBody,
    },
};

/// What a version of a job's model consists of: the model, how it is sent, and the strategy's state.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ModelForm {
    /// Names, shapes, roles and order of the model's tensors.
    pub layout: Arc<Layout>,
    /// How trainable tensors are sent to workers. Buffers are always sent as they are.
    pub encoding: Encoding,
    /// The strategy's state, by position.
    pub states: Vec<StateForm>,
}

impl ModelForm {
    /// A model without a state.
    pub fn new(layout: Arc<Layout>, encoding: Encoding) -> Self {
        Self {
            layout,
            encoding,
            states: Vec::new(),
        }
    }

    /// What workers get of the model: all but the frozen tensors.
    pub(crate) fn body(&self) -> Form {
        Form::new(self.encoding, self.layout.clone(), Roles::TRAINED)
    }

    /// What workers get once.
    pub(crate) fn frozen(&self) -> Form {
        Form::new(Encoding::F32, self.layout.clone(), Roles::FROZEN)
    }

    /// Whether there are frozen tensors.
    pub(crate) fn has_frozen(&self) -> bool {
        self.layout
            .tensors()
            .iter()
            .any(|spec| spec.role == Role::Frozen)
    }
}

/// One tensor of a strategy's state: f32 values for the model's tensors of these roles.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StateForm {
    /// Its name, which is a payload's: see [`crate::parameters::PayloadSpec::name`].
    pub name: String,
    /// Which of the model's tensors it has.
    pub roles: Roles,
    /// Whether workers may ask for it.
    pub offered: bool,
}

impl StateForm {
    /// A tensor that stays with the coordinator.
    pub fn new(name: impl Into<String>, roles: Roles) -> Self {
        Self {
            name: name.into(),
            roles,
            offered: false,
        }
    }

    /// The same, offered to workers.
    pub fn offered(mut self) -> Self {
        self.offered = true;
        self
    }

    pub(crate) fn form(&self, layout: &Arc<Layout>) -> Form {
        Form::new(Encoding::F32, layout.clone(), self.roles)
    }
}

/// Keeps global models, and the strategy's state with them.
///
/// # Contract
///
/// 1. A version is there only after [`ModelWriter::publish`] returned it, and then all of it is; a writer that is dropped before
///    that leaves nothing behind.
/// 2. A version reads back to the bit, in any order of its blocks: the model, its body in the job's
///    encoding, the frozen tensors, and the strategy's state.
/// 3. A [`StoredModel`] that somebody holds stays readable after its removal.
/// 4. A version that is published again replaces the first one; a holder of the first one still reads the first one.
/// 5. A value that the job's encoding does not have is a [`StoreError::Encoding`] that names the tensor.
/// 6. All methods may be called from several threads, and may wait for a disk.
///
/// 7. A version that was published can be opened again, by a later process if the store outlives it.
///
/// `store::conformance` (feature `testing`) checks 1 to 5; 7 is for stores that outlive their process.
pub trait ModelStore: Send + Sync {
    /// Begins a version of a job's model.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn begin(
        &self,
        job: JobId,
        version: ModelVersion,
        form: &ModelForm,
    ) -> Result<Box<dyn ModelWriter>, StoreError>;

    /// Opens a version that an earlier process published. `version.1` is what [`StoredModel::published`] said of it then.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`] if it is not there, or not as it was published.
    fn open(
        &self,
        job: JobId,
        version: ModelVersion,
        form: &ModelForm,
        published: &PublishedVersion,
    ) -> Result<Arc<dyn StoredModel>, StoreError> {
        let _ = (form, published);
        Err(StoreError::Missing {
            what: format!("version {version} of job {job}"),
            problem: "these models were in memory alone".to_string(),
        })
    }

    /// Reads all of a version that an earlier process published: whether it is still what it was.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`] if it is not.
    fn verify(
        &self,
        job: JobId,
        version: ModelVersion,
        published: &PublishedVersion,
    ) -> Result<(), StoreError> {
        let _ = (job, version, published);
        Ok(())
    }

    /// Forgets a version; without one, all of the job's.
    fn remove(&self, job: JobId, version: Option<ModelVersion>);

    /// Removes all but what `keeps` names: versions that nobody knows of, and those that were not published. Called at the start,
    /// before any version is begun.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn retain(&self, keeps: &dyn Fn(JobId, ModelVersion) -> bool) -> Result<(), StoreError> {
        let _ = keeps;
        Ok(())
    }
}

/// What a published version consists of, so that a later process can open it and see whether it is whole.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PublishedVersion {
    /// Its files.
    pub files: Vec<PublishedFile>,
    /// The numbers of the strategy's state.
    pub numbers: BTreeMap<String, f64>,
}

/// A file of a published version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedFile {
    /// Its name in the version's folder.
    pub name: String,
    /// Its length, in bytes.
    pub bytes: u64,
    /// Of the whole file.
    pub digest: Digest,
}

/// One version while it is written: every value of the model, and of each state tensor's roles, exactly once, in blocks of
/// [`Layout::blocks`], in any order. Dropping it undoes it.
pub trait ModelWriter: BlockWriter {
    /// Takes values of a state tensor, by its position in [`ModelForm::states`], from `offset` on.
    ///
    /// # Errors
    ///
    /// [`BlockError::OutOfRange`] past the layout's end or for a tensor that there is not; [`BlockError::Unwritable`] if the
    /// storage fails.
    fn write_state(
        &mut self,
        state: usize,
        offset: usize,
        values: &[f32],
    ) -> Result<(), BlockError>;

    /// Makes the version, of which every value has been written, and the numbers of the strategy's state durable, and all
    /// of it appear in one step.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing has appeared then.
    fn publish(
        self: Box<Self>,
        numbers: &BTreeMap<String, f64>,
    ) -> Result<Arc<dyn StoredModel>, StoreError>;
}

/// A version of the global model. Reading it by block gives its values as they are.
pub trait StoredModel: BlockReader + Send + Sync {
    /// The file of the whole model as it is (f32).
    fn file(&self) -> Arc<dyn StoredBody>;

    /// The body that is sent to workers: trainable tensors in the job's encoding and buffers, without frozen tensors.
    fn body(&self) -> Arc<dyn StoredBody>;

    /// The frozen tensors, if the model has any.
    fn frozen(&self) -> Option<Arc<dyn StoredBody>>;

    /// A state tensor that is offered to workers, as a body whose names begin with its own and `/`.
    fn payload(&self, name: &str) -> Option<Arc<dyn StoredBody>>;

    /// A tensor of the strategy's state.
    fn state(&self, name: &str) -> Option<&(dyn BlockReader + Send + Sync)>;

    /// The numbers of the strategy's state.
    fn numbers(&self) -> &BTreeMap<String, f64>;

    /// What [`ModelStore::open`] needs to open it again.
    fn published(&self) -> PublishedVersion {
        PublishedVersion {
            files: Vec::new(),
            numbers: self.numbers().clone(),
        }
    }

    /// All values, in memory; without a copy, if they are there anyway.
    ///
    /// # Errors
    ///
    /// [`BlockError::Unreadable`].
    fn parameters(&self) -> Result<Arc<Parameters>, BlockError>;
}

/// Why a model could not be kept.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The operating system refuses.
    #[error("{path}: {problem}")]
    Io {
        /// The file or folder.
        path: String,
        /// What went wrong.
        #[source]
        problem: Cause,
    },
    /// The disk has no room.
    #[error("{path}: {problem}")]
    Full {
        /// The file or folder.
        path: String,
        /// What the operating system says.
        #[source]
        problem: Cause,
    },
    /// Another coordinator has the folder.
    #[error("{path} is another coordinator's")]
    InUse {
        /// The folder.
        path: String,
    },
    /// What was kept is not there any more, or not as it was.
    #[error("{what} is missing or damaged: {problem}")]
    Missing {
        /// Which model or report.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The model has no form in the job's encoding: a value is too large for f16.
    #[error("the model can't be encoded: {0}")]
    Encoding(String),
    /// Not every value was written.
    #[error("{missing} of the model's {len} values were not written")]
    Incomplete {
        /// How many values are missing.
        missing: usize,
        /// How many there are.
        len: usize,
    },
}
