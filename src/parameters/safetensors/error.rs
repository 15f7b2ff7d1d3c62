//! Why a safetensors body is not taken.

use thiserror::Error;

use crate::parameters::{Digest, HeaderError, LayoutError};

/// Why a body is not the parameters that were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SafetensorsError {
    /// Not a safetensors header, or one that contradicts itself.
    #[error("malformed safetensors header: {0}")]
    Malformed(String),
    /// The header is larger than any honest one.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// More values than are taken.
    #[error("the header announces {announced} bytes of values, and {limit} is the most")]
    TooLarge {
        /// What the header says.
        announced: u64,
        /// What is taken.
        limit: u64,
    },
    /// Values of a type that is not taken.
    #[error("tensor {name:?} is {found}, not {expected}")]
    Dtype {
        /// The tensor.
        name: String,
        /// Its type.
        found: String,
        /// The type that the encoding has there.
        expected: String,
    },
    /// A scale of int8 that is negative, not finite, or of more than 16 significant bits.
    #[error(
        "tensor {name:?} has a value that is not a scale: a scale is at least 0, finite, and has at most 16 significant bits"
    )]
    Scale {
        /// The tensor.
        name: String,
    },
    /// The indices of a sparse payload don't rise, or one is past the model's end.
    #[error(
        "tensor {name:?} has an index that is not above the one before it, or not below the model's number of trainable values"
    )]
    Index {
        /// The tensor.
        name: String,
    },
    /// A sparse payload with more values than the job's encoding allows.
    #[error("the body has {found} values, and the job's encoding allows at most {limit}")]
    Entries {
        /// How many there are.
        found: usize,
        /// How many there may be.
        limit: usize,
    },
    /// The body is not the one that was sent.
    #[error(
        "the body's digest is {found}, and {announced} was announced: it was damaged on the way, so send it again"
    )]
    Digest {
        /// What the sender says.
        announced: Digest,
        /// What came.
        found: Digest,
    },
    /// Other tensors than the layout's.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A NaN or an infinity.
    #[error("tensor {name:?} has a value that is not finite")]
    NotFinite {
        /// The tensor.
        name: String,
    },
    /// The body ended early.
    #[error("the body ended at least {missing} bytes early")]
    Truncated {
        /// How many bytes are known to be missing.
        missing: u64,
    },
    /// The body goes on after its last tensor.
    #[error("the body goes on after its last tensor")]
    TooLong,
}

impl SafetensorsError {
    /// Of a decoder that is used after it failed.
    pub(in crate::parameters) fn failed_before() -> Self {
        Self::Malformed("an earlier piece of this body was refused".to_string())
    }
}
