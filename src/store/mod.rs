//! Where global models are kept, and reports until their round closes: in memory, or in files.
//!
//! A version of the global model is written while it is folded, beside the one before, and appears in one atomic step,
//! together with the strategy's state. Nothing here knows jobs' rules; the coordinator says when.

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod folder;
mod memory;
mod models;
mod spool;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use folder::DataFolder;
pub use memory::MemoryModels;
pub use models::FileModels;
pub use spool::{FileSpool, FileSpoolConfig};
use thiserror::Error;

use crate::{
    ids::{JobId, ModelVersion},
    parameters::{BlockError, BlockReader, BlockWriter, Encoding, Layout, Parameters, StoredBody},
    strategy::StrategyState,
};

/// Keeps global models.
///
/// # Contract
///
/// A version is there only after [`ModelWriter::publish`] returned it; a writer that is dropped before that leaves
/// nothing behind. A [`StoredModel`] that somebody holds stays readable after its removal. All methods may be called from
/// several threads, and may wait for a disk. `store::conformance` (feature `testing`) checks this.
pub trait ModelStore: Send + Sync {
    /// Begins a version of a job's model, which will be sent in this encoding.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn begin(
        &self,
        job: JobId,
        version: ModelVersion,
        layout: &Arc<Layout>,
        encoding: Encoding,
    ) -> Result<Box<dyn ModelWriter>, StoreError>;

    /// Forgets a version; without one, all of the job's.
    fn remove(&self, job: JobId, version: Option<ModelVersion>);
}

/// One version while it is written. Dropping it undoes it.
pub trait ModelWriter: BlockWriter {
    /// Makes the version, of which every value has been written, and the strategy's state durable, and both appear in
    /// one step.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing has appeared then.
    fn publish(self: Box<Self>, state: &StrategyState) -> Result<Arc<dyn StoredModel>, StoreError>;
}

/// A version of the global model. Reading it by block gives its values as they are.
pub trait StoredModel: BlockReader + Send + Sync {
    /// The file of the values as they are (f32).
    fn file(&self) -> Arc<dyn StoredBody>;

    /// The body that is sent to workers, in the job's encoding.
    fn body(&self) -> Arc<dyn StoredBody>;

    /// All values, in memory; without a copy, where they are there anyway.
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
        problem: String,
    },
    /// Another coordinator has the folder.
    #[error("{path} is another coordinator's")]
    InUse {
        /// The folder.
        path: String,
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
