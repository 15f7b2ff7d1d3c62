//! Which examples a job keeps for validation.

use super::{JobDescription, JobSpec};
use crate::{
    ids::RoundId,
    partition::{PartitionError, ValidationSplit},
    rng::{Purpose, keyed},
};

impl JobDescription {
    /// The two parts of a training split of this many examples: the same for the coordinator and each worker.
    ///
    /// # Errors
    ///
    /// [`PartitionError::NothingToValidate`] of fewer than two examples.
    pub fn validation_split(&self, examples: usize) -> Result<ValidationSplit, PartitionError> {
        drawn(self.seed, examples, self.validation)
    }
}

impl JobSpec {
    /// As [`JobDescription::validation_split`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn validation_split(&self, examples: usize) -> Result<ValidationSplit, PartitionError> {
        drawn(self.seed, examples, self.validation)
    }
}

fn drawn(seed: u64, examples: usize, share: f64) -> Result<ValidationSplit, PartitionError> {
    let generator = keyed(seed, Purpose::Validation, RoundId(0), None);
    ValidationSplit::draw(examples, share, generator)
}
