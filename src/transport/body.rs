//! Parameters on their way: streams of safetensors bytes, or values in memory where both sides share one.

use std::{fmt, ops::Range, pin::Pin, sync::Arc};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use thiserror::Error;

use crate::parameters::{
    BodyDecoder, Digest, Encoded, Encoding, Layout, MemorySink, Parameters, StoredBody,
};

/// A stream of safetensors bytes.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send>>;

/// The body of a report.
pub enum ReportBody {
    /// The encoded delta in memory.
    Memory(Encoded),
    /// The safetensors bytes, with names such as `delta/fc1.weight`.
    Stream {
        /// The bytes.
        bytes: ByteStream,
        /// How many there will be, where that is known.
        length: Option<u64>,
        /// Their digest, where the sender says it.
        digest: Option<Digest>,
    },
}

/// The body of a model.
pub enum ModelBody {
    /// The model where it is kept.
    Stored(Arc<dyn StoredBody>),
    /// The safetensors bytes.
    Stream {
        /// The bytes.
        bytes: ByteStream,
        /// How many there will be, where that is known.
        length: Option<u64>,
        /// Their digest, where the sender says it.
        digest: Option<Digest>,
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
            Self::Stored(_) => "ModelBody::Stored",
            Self::Stream { .. } => "ModelBody::Stream",
        })
    }
}

impl ModelBody {
    /// The whole model, decoded, in memory.
    ///
    /// # Errors
    ///
    /// [`BodyError`] where the stream breaks, or is not a model of `layout` (of any layout, where none is given) in
    /// this encoding.
    pub async fn collect(
        self,
        encoding: Encoding,
        layout: Option<Arc<Layout>>,
    ) -> Result<Arc<Parameters>, BodyError> {
        let (mut bytes, length, digest) = match self {
            Self::Stored(body) => {
                if let Some(model) = body.in_memory() {
                    let same =
                        layout.map_or(Ok(()), |layout| layout.check_same(model.form().layout()));
                    same.map_err(malformed)?;
                    return model.decode().map_err(malformed);
                }
                let (length, digest) = (body.length(), body.digest());
                (stored_bytes(body, 0..length), Some(length), Some(digest))
            }
            Self::Stream {
                bytes,
                length,
                digest,
            } => (bytes, length, digest),
        };
        let decoder = BodyDecoder::new(encoding, layout, "");
        let mut decoder = decoder.with_limit(length.unwrap_or(u64::MAX));
        let mut sink = MemorySink::default();
        while let Some(piece) = bytes.next().await {
            decoder.push(&piece?, &mut sink).map_err(malformed)?;
        }
        let form = decoder.finish(digest).map_err(malformed)?;
        match encoding {
            Encoding::F32 => sink.into_parameters(&form).map(Arc::new).map_err(malformed),
            _ => sink.finish(form).decode().map_err(malformed),
        }
    }
}

fn malformed(error: impl fmt::Display) -> BodyError {
    BodyError::Malformed(error.to_string())
}

/// How many bytes of a stored body are read at once.
const PIECE: u64 = 128 * 1024;

/// A range of a stored body as a stream, read piece by piece on blocking threads as it is taken.
pub fn stored_bytes(body: Arc<dyn StoredBody>, range: Range<u64>) -> ByteStream {
    Box::pin(stream::unfold(Some(range), move |range| {
        let body = body.clone();
        async move {
            let range = range.filter(|range| !range.is_empty())?;
            let end = range.end.min(range.start + PIECE);
            let (start, count) = (range.start, (end - range.start) as usize);
            let read = tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; count];
                body.read(start, &mut piece).map(|()| Bytes::from(piece))
            });
            Some(match read.await {
                Ok(Ok(piece)) => (Ok(piece), Some(end..range.end)),
                Ok(Err(error)) => (Err(BodyError::Broken(error.to_string())), None),
                Err(error) => (Err(BodyError::Broken(error.to_string())), None),
            })
        }
    }))
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
