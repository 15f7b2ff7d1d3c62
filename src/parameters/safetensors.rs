//! The safetensors form of parameters: <https://github.com/huggingface/safetensors>.
//!
//! A file is a length (8 bytes, little endian), a JSON header of that length and the values. [`header`] makes the bytes
//! before the values, so that a body is sent as two pieces without a copy; [`Decoder`] takes a body of f32 in
//! pieces of any size; [`super::BodyDecoder`], which it stands on, takes one of any encoding. None of them does any IO.

use std::{collections::BTreeMap, sync::Arc};

use ::safetensors::tensor::Metadata;
use thiserror::Error;

use super::{
    BodyDecoder, BodyForm, Digest, Encoding, EncodingError, Form, HeaderError, HeaderLimits,
    Layout, LayoutError, MemorySink, Parameters, Role,
};

#[cfg(not(target_endian = "little"))]
compile_error!("parameters travel as the memory of little-endian f32 values");

/// The key of the file's metadata that names every tensor whose role is not trainable, as JSON.
pub(super) const ROLES: &str = "fedavg.roles";
/// PyTorch's counter of BatchNorm's batches: an integer that no averaging needs, so files may have it and layouts don't.
const BATCH_COUNTER: &str = "num_batches_tracked";
pub(super) const LENGTH_BYTES: usize = 8;

/// The bytes of a file of f32 before its values. `prefix` goes in front of each name: empty for a model, `delta/` for
/// that payload of a report.
pub fn header(layout: &Arc<Layout>, prefix: &str) -> Vec<u8> {
    Form::file(layout.clone()).header(prefix)
}

/// The whole file of a model.
pub fn encode(parameters: &Parameters) -> Vec<u8> {
    let mut bytes = header(parameters.layout(), "");
    bytes.extend_from_slice(bytemuck::cast_slice(parameters.values()));
    bytes
}

/// Reads the whole file of a model whose layout is not known beforehand. Roles are those that the file names; without
/// them, BatchNorm's `running_mean` and `running_var` are buffers and all else is trainable.
///
/// # Errors
///
/// As [`Decoder`].
pub fn decode(bytes: &[u8]) -> Result<Parameters, SafetensorsError> {
    let mut decoder = Decoder::any();
    decoder.push(bytes)?;
    decoder.finish()
}

/// Takes a safetensors body of f32 in pieces, into memory.
#[derive(Debug)]
pub struct Decoder {
    body: BodyDecoder,
    sink: MemorySink,
}

impl Decoder {
    /// For a model that must have this layout.
    pub fn new(expected: Arc<Layout>) -> Self {
        let form = BodyForm::one("", Form::file(expected));
        Self {
            body: BodyDecoder::new(Arc::new(form)),
            sink: MemorySink::default(),
        }
    }

    /// For a model of any layout.
    pub fn any() -> Self {
        Self {
            body: BodyDecoder::any_model(Encoding::F32),
            sink: MemorySink::default(),
        }
    }

    /// As [`BodyDecoder::with_limit`].
    pub fn with_limit(mut self, bytes: u64) -> Self {
        self.body = self.body.with_limit(bytes);
        self
    }

    /// As [`BodyDecoder::with_header_limits`].
    pub fn with_header_limits(mut self, limits: HeaderLimits) -> Self {
        self.body = self.body.with_header_limits(limits);
        self
    }

    /// Takes the next piece.
    ///
    /// # Errors
    ///
    /// [`SafetensorsError`], at the first piece that shows it; the decoder then stays failed.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), SafetensorsError> {
        self.body.push(piece, &mut self.sink).map_err(in_memory)
    }

    /// The parameters, once the whole body has been taken.
    ///
    /// # Errors
    ///
    /// [`SafetensorsError::Truncated`] where the body ended early.
    pub fn finish(self) -> Result<Parameters, SafetensorsError> {
        let form = self.body.finish(None).map_err(in_memory)?;
        Ok(self.sink.into_parameters(form)?)
    }
}

/// Memory does not fail, so that only the body can be wrong.
fn in_memory(error: EncodingError) -> SafetensorsError {
    match error {
        EncodingError::Malformed(error) => error,
        other => SafetensorsError::Malformed(other.to_string()),
    }
}

/// Takes the bytes of a body until its header is whole.
#[derive(Debug)]
pub(super) struct HeaderReader {
    bytes: Vec<u8>,
    limits: HeaderLimits,
}

impl HeaderReader {
    /// Of a body with payloads of these layouts; of any model, without one.
    pub fn new<'a>(expected: impl IntoIterator<Item = &'a Layout>) -> Self {
        let mut limits = HeaderLimits::default();
        // A header is not larger than a generous multiple of what the layouts' own is.
        let own = expected.into_iter().map(Layout::header_limit);
        if let Some(bytes) = own.reduce(|sum, bytes| sum + bytes) {
            limits = HeaderLimits {
                bytes,
                tensors: bytes,
                name: bytes,
                dimensions: bytes,
            };
        }
        Self::within(limits)
    }

    /// Of a body whose header is within these limits.
    pub fn within(limits: HeaderLimits) -> Self {
        let bytes = Vec::new();
        Self { bytes, limits }
    }

    /// Takes from the front of `piece` what belongs to the header, and gives it back once it is whole.
    pub fn push(&mut self, piece: &mut &[u8]) -> Result<Option<Metadata>, SafetensorsError> {
        self.take(piece, LENGTH_BYTES);
        let Some(length) = self.bytes.first_chunk() else {
            return Ok(None);
        };
        let length = u64::from_le_bytes(*length);
        self.limits.check_length(length)?;
        let end = LENGTH_BYTES + length as usize;
        self.take(piece, end);
        if self.bytes.len() < end {
            return Ok(None);
        }
        let json = &self.bytes[LENGTH_BYTES..];
        self.limits.check(json)?;
        serde_json::from_slice(json)
            .map(Some)
            .map_err(|error| SafetensorsError::Malformed(error.to_string()))
    }

    /// Fills the bytes up to `end` from the front of `piece`.
    fn take(&mut self, piece: &mut &[u8], end: usize) {
        let count = end.saturating_sub(self.bytes.len()).min(piece.len());
        self.bytes.extend_from_slice(&piece[..count]);
        *piece = &piece[count..];
    }
}

/// Whether every value is finite.
///
/// # Errors
///
/// [`SafetensorsError::NotFinite`] names the first tensor that has a NaN or an infinity.
pub fn check_finite(layout: &Layout, values: &[f32]) -> Result<(), SafetensorsError> {
    // Without an early exit the loop vectorizes.
    if values
        .iter()
        .fold(false, |bad, value| bad | !value.is_finite())
    {
        Err(SafetensorsError::NotFinite {
            name: layout.name_at(0, values, |value| !value.is_finite()),
        })
    } else {
        Ok(())
    }
}

pub(super) fn is_batch_counter(name: &str) -> bool {
    name.rsplit('.').next() == Some(BATCH_COUNTER)
}

/// The role of a tensor: what the file says, or what its name does if the file has no roles at all.
pub(super) fn role_of(roles: Option<&BTreeMap<String, Role>>, full_name: &str, name: &str) -> Role {
    match roles {
        Some(roles) => roles.get(full_name).copied().unwrap_or_default(),
        None if name.ends_with("running_mean") || name.ends_with("running_var") => Role::Buffer,
        None => Role::Trainable,
    }
}

pub(super) fn roles_of(metadata: &Metadata) -> Option<BTreeMap<String, Role>> {
    metadata
        .metadata()
        .as_ref()?
        .get(ROLES)
        .and_then(|text| serde_json::from_str(text).ok())
}

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
    #[error("{announced} bytes of values are announced, more than the limit of {limit}")]
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
        "{name} has a value that is no scale: at least 0, finite, of at most 16 significant bits"
    )]
    Scale {
        /// The tensor.
        name: String,
    },
    /// The indices of a sparse payload don't rise, or one is past the model's end.
    #[error("{name} has an index that is not above the one before it, or is past the model's end")]
    Index {
        /// The tensor.
        name: String,
    },
    /// A sparse payload with more values than the job's encoding allows.
    #[error("{found} values where the job's encoding has at most {limit}")]
    Entries {
        /// How many there are.
        found: usize,
        /// How many there may be.
        limit: usize,
    },
    /// The body is not the one that was sent.
    #[error("the body's digest is {found}, and {announced} was announced")]
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
    pub(super) fn failed_before() -> Self {
        Self::Malformed("the body failed before".to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Parameters {
        let layout = Layout::new([
            ("w".to_string(), vec![2, 2], Role::Trainable),
            ("bn.running_mean".to_string(), vec![3], Role::Buffer),
        ])
        .unwrap();
        Parameters::new(layout, (0..7).map(|value| value as f32).collect()).unwrap()
    }

    #[test]
    fn a_file_reads_back_whole_and_in_pieces_of_any_size() {
        let parameters = sample();
        let bytes = encode(&parameters);
        assert_eq!(
            bytes.len() % 8,
            4,
            "the values begin at a multiple of eight"
        );
        assert_eq!(decode(&bytes).unwrap(), parameters);
        for size in [1, 3, 7, 64] {
            let mut decoder = Decoder::new(parameters.layout().clone());
            bytes
                .chunks(size)
                .for_each(|piece| decoder.push(piece).unwrap());
            assert_eq!(decoder.finish().unwrap(), parameters);
        }
    }

    #[test]
    fn the_library_itself_reads_what_is_written() {
        let bytes = encode(&sample());
        let file = ::safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.tensor("w").unwrap().shape(), [2, 2]);
        assert_eq!(file.names().len(), 2);
    }

    #[test]
    fn broken_bodies_are_typed_errors() {
        let parameters = sample();
        let bytes = encode(&parameters);
        let decode_as = |bytes: &[u8]| {
            let mut decoder = Decoder::new(parameters.layout().clone());
            decoder.push(bytes).and_then(|()| decoder.finish())
        };
        assert_eq!(
            decode_as(&bytes[..bytes.len() - 1]),
            Err(SafetensorsError::Truncated { missing: 1 })
        );
        assert_eq!(
            decode_as(&bytes[..5]),
            Err(SafetensorsError::Truncated { missing: 1 })
        );
        assert_eq!(
            decode_as(&[&bytes[..], &[0]].concat()),
            Err(SafetensorsError::TooLong)
        );
        assert!(matches!(
            decode_as(&[0xff; 16]),
            Err(SafetensorsError::Header(HeaderError::TooLong { .. }))
        ));
        let mut garbage = bytes.clone();
        garbage[9] = b'!';
        assert!(matches!(
            decode_as(&garbage),
            Err(SafetensorsError::Header(HeaderError::Malformed(_)))
        ));
        let mut nan = bytes.clone();
        let end = nan.len();
        nan[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        assert_eq!(
            decode_as(&nan),
            Err(SafetensorsError::NotFinite {
                name: "w".to_string()
            })
        );
        let other = Layout::new([("w".to_string(), vec![4], Role::Trainable)]).unwrap();
        let error = decode_as(&encode(&Parameters::zeros(other))).unwrap_err();
        assert_eq!(error.to_string(), "tensor \"w\" has shape [4], not [2, 2]");
    }

    #[test]
    fn a_header_that_announces_too_much_is_refused_before_space_is_taken() {
        let header =
            br#"{"w":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header);
        let refused = Decoder::any().with_limit(1 << 20).push(&bytes);
        assert_eq!(
            refused,
            Err(SafetensorsError::TooLarge {
                announced: 4_000_000_000_000,
                limit: 1 << 20
            })
        );
    }

    #[test]
    fn tensors_in_another_order_and_pytorchs_batch_counters_are_taken() {
        let header = br#"{"w":{"dtype":"F32","shape":[2,2],"data_offsets":[8,24]},"bn.num_batches_tracked":{"dtype":"I64","shape":[],"data_offsets":[0,8]},"bn.running_mean":{"dtype":"F32","shape":[3],"data_offsets":[24,36]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header);
        bytes.extend_from_slice(&9i64.to_le_bytes());
        for value in [3f32, 4.0, 5.0, 6.0, 0.0, 1.0, 2.0] {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        assert_eq!(decode(&bytes).unwrap(), sample());
    }
}
