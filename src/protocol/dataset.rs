//! What is said about a dataset, without the data.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What a worker or a coordinator says about its copy of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct DatasetInfo {
    /// Its name.
    pub name: String,
    /// SHA-256 in lower-case hexadecimal, over the fingerprints of the training and of the test split, as texts one after
    /// the other. A split's is SHA-256 in lower-case hexadecimal over: the text `fedavg image set 1` and a line feed;
    /// channels, height, width, number of classes and number of examples, each as a little-endian 64-bit integer; the labels
    /// as little-endian 16-bit integers; the pixels' bytes, image by image, channel by channel, row by row.
    pub fingerprint: String,
    /// Number of training examples.
    pub train_examples: u64,
    /// Number of test examples.
    pub test_examples: u64,
}

impl DatasetInfo {
    /// A copy of a dataset with this many training and test examples. Two copies are the same if their fingerprints are.
    pub fn new(
        name: impl Into<String>,
        fingerprint: impl Into<String>,
        train_examples: u64,
        test_examples: u64,
    ) -> Self {
        Self {
            name: name.into(),
            fingerprint: fingerprint.into(),
            train_examples,
            test_examples,
        }
    }
}

/// The examples of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct DatasetPartition {
    /// The dataset.
    pub dataset: String,
    /// Its fingerprint; the examples are of this copy alone. Empty for `local` data.
    pub fingerprint: String,
    /// Indices into the training split, in rising order; none if the data is the worker's own.
    #[cfg_attr(feature = "http", schema(value_type = Option<Vec<u32>>))]
    pub indices: Option<Arc<[u32]>>,
}
