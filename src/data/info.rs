//! What is said about a copy of a dataset, without the data.

use serde::{Deserialize, Serialize};

/// What a worker or a coordinator says about its copy of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
pub struct DatasetInfo {
    /// Its name.
    pub name: String,
    /// SHA-256 over labels and decoded bytes of both splits, in hexadecimal.
    pub fingerprint: String,
    /// Number of training examples.
    pub train_examples: u64,
    /// Number of test examples.
    pub test_examples: u64,
}
