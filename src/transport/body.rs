//! Parameters on their way: streams of safetensors bytes, or values in memory where both sides share one.

use std::{fmt, pin::Pin, sync::Arc};

use bytes::Bytes;
use futures_util::Stream;
use thiserror::Error;

use crate::parameters::{
    Layout, Parameters,
    safetensors::{Decoder, header},
};

/// A stream of safetensors bytes.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send>>;

/// The body of a report.
pub enum ReportBody {
    /// The delta in memory.
    Memory(Arc<Parameters>),
    /// The safetensors bytes, with names such as `delta/fc1.weight`.
    Stream {
        /// The bytes.
        bytes: ByteStream,
        /// How many there will be, where that is known.
        length: Option<u64>,
    },
}

/// The body of a model.
pub enum ModelBody {
    /// The model in memory.
    Memory(Arc<Parameters>),
    /// The safetensors bytes.
    Stream {
        /// The bytes.
        bytes: ByteStream,
        /// How many there will be, where that is known.
        length: Option<u64>,
    },
}

impl fmt::Debug for ReportBody {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Memory(_) => "ReportBody::Memory",
            Self::Stream { .. } => "ReportBody::Stream",
        })
    }
}

impl fmt::Debug for ModelBody {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Memory(_) => "ModelBody::Memory",
            Self::Stream { .. } => "ModelBody::Stream",
        })
    }
}

impl ModelBody {
    /// The whole model, in memory.
    ///
    /// # Errors
    ///
    /// [`BodyError`] where the stream breaks, or is not a model of `layout` (of any layout, where none is given).
    pub async fn collect(self, layout: Option<Arc<Layout>>) -> Result<Arc<Parameters>, BodyError> {
        let (mut bytes, length) = match self {
            Self::Memory(parameters) => {
                if let Some(layout) = layout {
                    let same = layout.check_same(parameters.layout());
                    same.map_err(|error| BodyError::Malformed(error.to_string()))?;
                }
                return Ok(parameters);
            }
            Self::Stream { bytes, length } => (bytes, length),
        };
        let decoder = layout.map_or_else(Decoder::any, |layout| Decoder::new(layout, ""));
        let mut decoder = decoder.with_limit(length.unwrap_or(u64::MAX));
        while let Some(piece) =
            std::future::poll_fn(|context| bytes.as_mut().poll_next(context)).await
        {
            decoder
                .push(&piece?)
                .map_err(|error| BodyError::Malformed(error.to_string()))?;
        }
        decoder
            .finish()
            .map(Arc::new)
            .map_err(|error| BodyError::Malformed(error.to_string()))
    }
}

/// Parameters as the pieces of a safetensors body, without a copy of the values: header and values.
pub fn pieces(parameters: &Arc<Parameters>, prefix: &str) -> [Bytes; 2] {
    struct Values(Arc<Parameters>);
    impl AsRef<[u8]> for Values {
        fn as_ref(&self) -> &[u8] {
            bytemuck::cast_slice(self.0.values())
        }
    }
    let values = Bytes::from_owner(Values(parameters.clone()));
    [Bytes::from(header(parameters.layout(), prefix)), values]
}

/// Why a body did not come whole.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The connection broke, or the sender stopped.
    #[error("the body broke off: {0}")]
    Broken(String),
    /// It is larger than the limit.
    #[error("the body is larger than the limit of {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// It is not what it should be.
    #[error("the body is malformed: {0}")]
    Malformed(String),
}
