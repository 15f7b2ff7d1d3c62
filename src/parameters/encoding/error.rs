//! Why values can't be encoded, or a body can't be taken.

use thiserror::Error;

use crate::parameters::{BlockError, LayoutError, safetensors::SafetensorsError};

/// Why a body is not the encoded parameters that were asked for, or could not be kept.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EncodingError {
    /// It is not what it should be.
    #[error(transparent)]
    Malformed(#[from] SafetensorsError),
    /// The place that it goes to failed.
    #[error(transparent)]
    Storage(#[from] BlockError),
    /// The model has more values than a sparse payload can number.
    #[error("the model has more values than 32 bits can number")]
    TooLong,
    /// A value is finite, and too large for the encoding.
    #[error("tensor {name:?} has the value {value}, and the largest of {encoding} is {largest}")]
    Overflow {
        /// The tensor.
        name: String,
        /// The value, in digits.
        value: String,
        /// The encoding.
        encoding: String,
        /// The largest value that the encoding has, in digits.
        largest: String,
    },
}

impl From<LayoutError> for EncodingError {
    fn from(error: LayoutError) -> Self {
        Self::Malformed(error.into())
    }
}
