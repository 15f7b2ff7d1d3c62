//! Parameters on their way: streams of safetensors bytes, or values in memory if both sides share one.

use std::{error::Error, fmt, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::pieces::{BodyError, ByteStream, stored_bytes};
use crate::{
    Cause,
    parameters::{
        BodyDecoder, BodyForm, Digest, Digesting, Encoded, Encoding, MemorySink, Parameters,
        Payloads, StoredBody, safetensors::SafetensorsError,
    },
};

/// The body of a report.
#[non_exhaustive]
pub enum ReportBody {
    /// The encoded payloads in memory.
    Memory(Payloads),
    /// The safetensors bytes, with names such as `delta/fc1.weight`.
    Stream {
        /// The bytes.
        bytes: ByteStream,
        /// How many there will be, if that is known.
        length: Option<u64>,
        /// Their digest, if the sender says it.
        digest: Option<Digest>,
    },
    /// The rest of such bytes, of which the first ones have been kept from an upload that broke off.
    Rest {
        /// The rest.
        bytes: ByteStream,
        /// How many bytes the rest will have, if that is known.
        length: Option<u64>,
        /// The digest of the whole body.
        digest: Digest,
        /// How many bytes come before the rest; at least 1.
        offset: u64,
    },
}

/// The body of a model.
#[non_exhaustive]
pub enum ModelBody {
    /// The model if it is kept.
    Stored(Arc<dyn StoredBody>),
    /// The safetensors bytes.
    Stream {
        /// The bytes.
        bytes: ByteStream,
        /// How many there will be, if that is known.
        length: Option<u64>,
        /// Their digest, if the sender says it.
        digest: Option<Digest>,
    },
}

impl fmt::Debug for ReportBody {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Memory(_) => "ReportBody::Memory",
            Self::Stream { .. } => "ReportBody::Stream",
            Self::Rest { .. } => "ReportBody::Rest",
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
    /// [`BodyError`] if the stream breaks, or is not of this form (of any layout in this encoding, if no form is given).
    pub async fn collect(
        self,
        encoding: Encoding,
        form: Option<Arc<BodyForm>>,
    ) -> Result<Arc<Parameters>, BodyError> {
        // The decoder checks the form of a stream. A model in memory never passes it.
        if let (Some(form), Some(model)) = (&form, self.in_memory()) {
            for expected in form.parts() {
                let same = expected.form.layout().check_same(model.form().layout());
                same.map_err(malformed)?;
            }
        }
        let decoder = match form {
            Some(form) => BodyDecoder::new(form),
            None => BodyDecoder::any_model(encoding),
        };
        self.decode(decoder).await
    }

    /// The same with an end at this many bytes. A stream that says its length is also ended once it is longer than that.
    ///
    /// # Errors
    ///
    /// [`BodyError::ModelTooLarge`] if it says that it is longer: nothing of it has been read then.
    pub fn within(self, limit: u64) -> Result<Self, BodyError> {
        let announced = match &self {
            Self::Stored(body) => Some(body.length()),
            Self::Stream { length, .. } => *length,
        };
        if let Some(bytes) = announced.filter(|length| *length > limit) {
            return Err(BodyError::ModelTooLarge { bytes, limit });
        }
        let Self::Stream {
            bytes,
            length,
            digest,
        } = self
        else {
            return Ok(self);
        };
        let mut taken: u64 = 0;
        let bytes = bytes.map(move |piece| {
            let piece = piece?;
            taken = taken.saturating_add(piece.len() as u64);
            match length {
                Some(length) if taken > length => {
                    let detail = format!("it has more than the {length} bytes that it announced");
                    Err(BodyError::Malformed(detail.into()))
                }
                None if taken > limit => Err(BodyError::ModelTooLarge {
                    bytes: taken,
                    limit,
                }),
                _ => Ok(piece),
            }
        });
        Ok(Self::Stream {
            bytes: Box::pin(bytes),
            // Without a length, a header could have memory set aside for any number of values.
            length: Some(length.unwrap_or(limit)),
            digest,
        })
    }

    /// The whole payload with this name, in f32, of any layout, in memory. Names are without the payload's prefix.
    ///
    /// # Errors
    ///
    /// As [`ModelBody::collect`].
    pub async fn collect_payload(self, name: &str) -> Result<Arc<Parameters>, BodyError> {
        let decoder = BodyDecoder::any_payload(name, Encoding::F32);
        self.decode(decoder).await
    }

    /// The safetensors bytes as they are, in pieces. The last item is an error if the bytes are not those of the digest.
    pub fn checked_bytes(self) -> ByteStream {
        let (bytes, digest) = match self {
            Self::Stored(body) => {
                let (length, digest) = (body.length(), body.digest());
                (stored_bytes(body, 0..length), Some(digest))
            }
            Self::Stream { bytes, digest, .. } => (bytes, digest),
        };
        let Some(announced) = digest else {
            return bytes;
        };
        let checked = Checked {
            bytes,
            announced,
            digest: Digesting::default(),
            ended: false,
        };
        Box::pin(stream::unfold(checked, |mut checked| async move {
            let piece = checked.next().await?;
            Some((piece, checked))
        }))
    }

    fn in_memory(&self) -> Option<&Encoded> {
        match self {
            Self::Stored(body) => body.in_memory(),
            Self::Stream { .. } => None,
        }
    }

    async fn decode(self, decoder: BodyDecoder) -> Result<Arc<Parameters>, BodyError> {
        if let Some(model) = self.in_memory() {
            return model.decode().map_err(malformed);
        }
        let (mut bytes, length, digest) = match self {
            Self::Stored(body) => {
                let (length, digest) = (body.length(), body.digest());
                (stored_bytes(body, 0..length), Some(length), Some(digest))
            }
            Self::Stream {
                bytes,
                length,
                digest,
            } => (bytes, length, digest),
        };
        // A header that announces more values than the body has bytes must not have memory set aside for them.
        let mut decoder = decoder.with_limit(length.unwrap_or(u64::MAX));
        let mut sink = MemorySink::default();
        while let Some(piece) = bytes.next().await {
            decoder.push(&piece?, &mut sink).map_err(malformed)?;
        }
        let form = decoder.finish(digest).map_err(malformed)?;
        sink.into_parameters(form).map(Arc::new).map_err(malformed)
    }
}

fn malformed(error: impl Error + Send + Sync + 'static) -> BodyError {
    BodyError::Malformed(Cause::of(error))
}

/// Bytes whose digest is compared at their end.
struct Checked {
    bytes: ByteStream,
    announced: Digest,
    digest: Digesting,
    /// The last item is out.
    ended: bool,
}

impl Checked {
    /// The next piece; an error as the last item if the bytes broke off or are not those of the digest.
    async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        if self.ended {
            return None;
        }
        match self.bytes.next().await {
            Some(Ok(piece)) => {
                self.digest.update(&piece);
                return Some(Ok(piece));
            }
            Some(Err(error)) => {
                self.ended = true;
                return Some(Err(error));
            }
            None => self.ended = true,
        }
        let (announced, found) = (self.announced, std::mem::take(&mut self.digest).finish());
        if found == announced {
            return None;
        }
        let mismatch = SafetensorsError::Digest { announced, found };
        Some(Err(malformed(mismatch)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(pieces: &'static [&'static str], length: Option<u64>) -> ModelBody {
        let bytes = pieces
            .iter()
            .map(|piece| Ok(Bytes::from_static(piece.as_bytes())));
        ModelBody::Stream {
            bytes: Box::pin(stream::iter(bytes.collect::<Vec<_>>())),
            length,
            digest: None,
        }
    }

    /// How many bytes come, and the error at the end.
    async fn read(body: ModelBody) -> (usize, Option<BodyError>) {
        let ModelBody::Stream { mut bytes, .. } = body else {
            panic!("{body:?}");
        };
        let mut count = 0;
        while let Some(piece) = bytes.next().await {
            match piece {
                Ok(piece) => count += piece.len(),
                Err(error) => return (count, Some(error)),
            }
        }
        (count, None)
    }

    #[tokio::test]
    async fn a_body_ends_at_the_limit_and_at_what_it_announced() {
        let pieces = &["1234", "5678", "9"];
        assert_eq!(
            read(body(pieces, Some(9)).within(9).unwrap()).await,
            (9, None)
        );
        assert_eq!(read(body(pieces, None).within(9).unwrap()).await, (9, None));
        let refused = body(pieces, Some(9)).within(8).unwrap_err();
        assert_eq!(refused, BodyError::ModelTooLarge { bytes: 9, limit: 8 });
        let (came, error) = read(body(pieces, None).within(7).unwrap()).await;
        assert_eq!(
            (came, error),
            (4, Some(BodyError::ModelTooLarge { bytes: 8, limit: 7 }))
        );
        let (came, error) = read(body(pieces, Some(5)).within(100).unwrap()).await;
        let error = error.unwrap().to_string();
        assert_eq!(came, 4);
        assert!(
            error.contains("more than the 5 bytes that it announced"),
            "{error}"
        );
    }
}
