//! How values are stored in bytes, on the wire and in the spool: every encoding can be read block by block.
//!
//! The bytes of an encoded model or delta are its *payload*; a [`Form`] has the place of each tensor in it. A safetensors body carries the payload's tensors: [`BodyDecoder`] takes one in pieces, checks it as it passes, and
//! hands the payload on in the form's own order, which need not be that of the body's tensors.

mod body;
mod check;
mod encoder;
mod error;
mod expected;
mod form;
mod memory;
mod payloads;
mod reader;
#[cfg(feature = "http")]
mod schema;
mod segments;
mod sink;
mod source;
mod stored;
mod top_k;
mod values;

use std::{fmt, str::FromStr};

pub use body::BodyDecoder;
pub(crate) use encoder::RangeEncoder;
pub use encoder::{encode, encode_block};
pub use error::EncodingError;
pub use form::Form;
pub use memory::Memory;
pub use payloads::{BodyForm, Part, Payloads};
pub use reader::{Encoded, EncodedReader};
use serde::{Deserialize, Serialize};
pub use sink::{BodySink, MemorySink};
pub use source::PayloadSource;
#[cfg(feature = "http")]
pub(crate) use stored::check_stored;
pub use stored::{MemoryBody, StoredBody};
use thiserror::Error;
pub use top_k::encode_top_k;
pub use values::Values;

/// How many values share a scale in [`Encoding::Int8`].
pub const GROUP: usize = 256;

/// The fraction of the values that `top_k` sends if none is named.
pub const DEFAULT_FRACTION: f64 = 0.01;

/// How values are stored in bytes. As text: `f32`, `f16`, `bf16`, `int8`, `top_k:0.01`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
#[non_exhaustive]
pub enum Encoding {
    /// As they are: little-endian f32.
    #[default]
    F32,
    /// IEEE half precision, rounded to even: a relative error of at most 2^-11 down to 6e-5, and an absolute one of at
    /// most 3e-8 below.
    F16,
    /// The upper half of an f32, rounded to even: a relative error of at most 2^-8.
    Bf16,
    /// An integer of -127 to 127 times a scale of its group of [`GROUP`] values: an absolute error of at most half the
    /// scale, which is the group's largest absolute value / 127, rounded up to 16 significant bits. The product is
    /// therefore exact in f32. Uniform quantization by buckets, as in Alistarh et al., "QSGD", NeurIPS 2017,
    /// <https://arxiv.org/abs/1610.02132>, here rounded to nearest.
    Int8,
    /// The values that are largest in absolute value, and their places. What is not sent is kept by the worker and
    /// added to the client's next delta (*error feedback*): Stich et al., "Sparsified SGD with Memory", NeurIPS 2018,
    /// <https://arxiv.org/abs/1809.07599>. For reports alone: a model can't be sent so.
    TopK {
        /// The fraction of the values that is sent, above 0 and at most 1.
        fraction: f64,
    },
}

impl Encoding {
    /// The name alone, without a parameter: what a worker says it knows.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::TopK { .. } => "top_k",
        }
    }

    /// The names of all encodings.
    pub const NAMES: [&'static str; 5] = ["f32", "f16", "bf16", "int8", "top_k"];

    /// Whether every value is sent.
    pub fn is_dense(self) -> bool {
        !matches!(self, Self::TopK { .. })
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TopK { fraction } => write!(formatter, "top_k:{fraction}"),
            other => formatter.write_str(other.name()),
        }
    }
}

impl FromStr for Encoding {
    type Err = UnknownEncoding;

    fn from_str(text: &str) -> Result<Self, UnknownEncoding> {
        let encoding = match text {
            "f32" => Some(Self::F32),
            "f16" => Some(Self::F16),
            "bf16" => Some(Self::Bf16),
            "int8" => Some(Self::Int8),
            "top_k" => Some(Self::TopK {
                fraction: DEFAULT_FRACTION,
            }),
            _ => top_k_with_fraction(text),
        };
        encoding.ok_or_else(|| UnknownEncoding(text.to_string()))
    }
}

/// The encoding of a text such as `top_k:0.01`, if its fraction is in range.
fn top_k_with_fraction(text: &str) -> Option<Encoding> {
    let fraction = text.strip_prefix("top_k:")?.parse().ok()?;
    if fraction > 0.0 && fraction <= 1.0 {
        Some(Encoding::TopK { fraction })
    } else {
        None
    }
}

impl From<Encoding> for String {
    fn from(encoding: Encoding) -> Self {
        encoding.to_string()
    }
}

impl TryFrom<String> for Encoding {
    type Error = UnknownEncoding;

    fn try_from(text: String) -> Result<Self, UnknownEncoding> {
        text.parse()
    }
}

/// A text names no encoding.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "unknown encoding {0:?}: use f32, f16, bf16, int8, or top_k:FRACTION with a fraction above 0 and at most 1"
)]
pub struct UnknownEncoding(pub String);

#[cfg(test)]
mod tests;
