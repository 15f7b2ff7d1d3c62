//! The safetensors form of parameters: <https://github.com/huggingface/safetensors>.
//!
//! A file is a length (8 bytes, little endian), a JSON header of that length and the values. [`header`] makes the bytes
//! before the values, so that a body is sent as two pieces without a copy; [`Decoder`] takes a body in
//! pieces of any size and checks layout, length and finiteness as they pass. Neither does any IO.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use ::safetensors::tensor::{Dtype, Metadata};
use serde_json::json;
use thiserror::Error;

use super::{Layout, LayoutError, Parameters, Role};

#[cfg(not(target_endian = "little"))]
compile_error!("parameters travel as the memory of little-endian f32 values");

/// The key of the file's metadata that names every tensor whose role is not trainable, as JSON.
const ROLES: &str = "fedavg.roles";
/// PyTorch's counter of BatchNorm's batches: an integer that no averaging needs, so files may have it and layouts don't.
const BATCH_COUNTER: &str = "num_batches_tracked";
const LENGTH_BYTES: usize = 8;

/// The bytes of a file before its values. `prefix` goes in front of each name: empty for a model, `delta/` for that
/// payload of a report.
pub fn header(layout: &Layout, prefix: &str) -> Vec<u8> {
    let roles: BTreeMap<_, _> = layout
        .tensors()
        .iter()
        .filter(|spec| spec.role != Role::Trainable)
        .map(|spec| (format!("{prefix}{}", spec.name), spec.role))
        .collect();
    let roles = json!(roles).to_string();
    // Written by hand in layout order, since a JSON map of the library would lose it.
    let mut text = format!(
        "{{\"__metadata__\":{}",
        json!({ "format": "pt", ROLES: roles })
    );
    for spec in layout.tensors() {
        let Range { start, end } = spec.range();
        let name = json!(format!("{prefix}{}", spec.name));
        let info =
            json!({ "dtype": "F32", "shape": spec.shape, "data_offsets": [start * 4, end * 4] });
        text.push_str(&format!(",{name}:{info}"));
    }
    text.push('}');
    while text.len() % LENGTH_BYTES != 0 {
        text.push(' ');
    }
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
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

/// Takes a safetensors body in pieces.
#[derive(Debug)]
pub struct Decoder {
    expected: Option<Arc<Layout>>,
    prefix: &'static str,
    limit: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Header(Vec<u8>),
    Values(Values),
    Failed,
}

/// Where the values of the body go.
#[derive(Debug)]
struct Values {
    layout: Arc<Layout>,
    values: Vec<f32>,
    /// Byte ranges of the body, in order, with the byte of the destination that each begins at; `None`: passed over.
    segments: Vec<(Range<usize>, Option<usize>)>,
    segment: usize,
    position: usize,
    total: usize,
}

impl Decoder {
    /// For a body that must have this layout; the names have `prefix` in front.
    pub fn new(expected: Arc<Layout>, prefix: &'static str) -> Self {
        Self {
            expected: Some(expected),
            prefix,
            limit: u64::MAX,
            state: State::Header(Vec::new()),
        }
    }

    /// For a model of any layout.
    pub fn any() -> Self {
        Self {
            expected: None,
            prefix: "",
            limit: u64::MAX,
            state: State::Header(Vec::new()),
        }
    }

    /// Refuses a body whose header announces more than this many bytes of values, before space for them is taken.
    /// Wanted for a model of any layout that comes from outside.
    pub fn with_limit(mut self, bytes: u64) -> Self {
        self.limit = bytes;
        self
    }

    /// Takes the next piece.
    ///
    /// # Errors
    ///
    /// [`SafetensorsError`], at the first piece that shows it; the decoder then stays failed.
    pub fn push(&mut self, mut piece: &[u8]) -> Result<(), SafetensorsError> {
        let result = self.try_push(&mut piece);
        if result.is_err() {
            self.state = State::Failed;
        }
        result
    }

    fn try_push(&mut self, piece: &mut &[u8]) -> Result<(), SafetensorsError> {
        if let State::Header(header) = &mut self.state {
            let limit = header_limit(self.expected.as_deref());
            take(header, piece, LENGTH_BYTES);
            if header.len() < LENGTH_BYTES {
                return Ok(());
            }
            let mut length = [0; LENGTH_BYTES];
            length.copy_from_slice(&header[..LENGTH_BYTES]);
            let length = u64::from_le_bytes(length);
            if length > limit as u64 {
                return Err(SafetensorsError::HeaderTooLarge { length, limit });
            }
            let end = LENGTH_BYTES + length as usize;
            take(header, piece, end);
            if header.len() < end {
                return Ok(());
            }
            self.state = State::Values(Values::new(
                &header[LENGTH_BYTES..],
                self.expected.clone(),
                self.prefix,
                self.limit,
            )?);
        }
        match &mut self.state {
            State::Values(values) => values.push(piece),
            _ => Err(SafetensorsError::Malformed(
                "the body failed before".to_string(),
            )),
        }
    }

    /// The parameters, once the whole body has been taken.
    ///
    /// # Errors
    ///
    /// [`SafetensorsError::Truncated`] where the body ended early; [`SafetensorsError::NotFinite`] is reported here or
    /// by an earlier `push`.
    pub fn finish(self) -> Result<Parameters, SafetensorsError> {
        match self.state {
            State::Values(values) if values.position == values.total => {
                Ok(Parameters::new(values.layout, values.values)?)
            }
            State::Values(values) => Err(SafetensorsError::Truncated {
                missing: values.total as u64 - values.position as u64,
            }),
            State::Header(_) => Err(SafetensorsError::Truncated { missing: 1 }),
            State::Failed => Err(SafetensorsError::Malformed(
                "the body failed before".to_string(),
            )),
        }
    }
}

/// Fills `buffer` up to `end` from the front of `piece`.
fn take(buffer: &mut Vec<u8>, piece: &mut &[u8], end: usize) {
    let count = end.saturating_sub(buffer.len()).min(piece.len());
    buffer.extend_from_slice(&piece[..count]);
    *piece = &piece[count..];
}

/// A header is not larger than a generous multiple of what the layout's own is; 64 MiB where none is known.
fn header_limit(expected: Option<&Layout>) -> usize {
    match expected {
        Some(layout) => {
            64 * 1024
                + layout
                    .tensors()
                    .iter()
                    .map(|spec| 2 * (spec.name.len() + 256))
                    .sum::<usize>()
        }
        None => 64 * 1024 * 1024,
    }
}

impl Values {
    fn new(
        header: &[u8],
        expected: Option<Arc<Layout>>,
        prefix: &str,
        limit: u64,
    ) -> Result<Self, SafetensorsError> {
        let metadata: Metadata = serde_json::from_slice(header)
            .map_err(|error| SafetensorsError::Malformed(error.to_string()))?;
        let announced = metadata.data_len() as u64;
        if announced > limit {
            return Err(SafetensorsError::TooLarge { announced, limit });
        }
        let roles = file_roles(&metadata);
        let mut tensors = Vec::new();
        let mut places = Vec::new();
        for full_name in metadata.offset_keys() {
            let info = metadata
                .info(&full_name)
                .ok_or_else(|| SafetensorsError::Malformed(full_name.clone()))?;
            let range = info.data_offsets.0..info.data_offsets.1;
            let is_counter = full_name.rsplit('.').next() == Some(BATCH_COUNTER);
            if is_counter && info.dtype == Dtype::I64 {
                places.push((range, None));
                continue;
            }
            if info.dtype != Dtype::F32 {
                return Err(SafetensorsError::Dtype {
                    name: full_name,
                    found: format!("{:?}", info.dtype),
                });
            }
            let Some(name) = full_name.strip_prefix(prefix) else {
                return Err(LayoutError::Unexpected { name: full_name }.into());
            };
            let role = match &roles {
                Some(roles) => roles.get(&full_name).copied().unwrap_or_default(),
                None if name.ends_with("running_mean") || name.ends_with("running_var") => {
                    Role::Buffer
                }
                None => Role::Trainable,
            };
            tensors.push((name.to_string(), info.shape.clone(), role));
            places.push((range, Some(name.to_string())));
        }
        let found = Layout::new(tensors)?;
        let layout = match expected {
            Some(expected) => {
                expected.check_same(&found)?;
                expected
            }
            None => found,
        };
        let segments = places
            .into_iter()
            .map(|(range, name)| {
                let start = name
                    .and_then(|name| layout.find(&name))
                    .map(|spec| spec.range().start * 4);
                (range, start)
            })
            .collect();
        let values = vec![0.0; layout.len()];
        Ok(Self {
            layout,
            values,
            segments,
            segment: 0,
            position: 0,
            total: metadata.data_len(),
        })
    }

    fn push(&mut self, piece: &mut &[u8]) -> Result<(), SafetensorsError> {
        while !piece.is_empty() {
            let Some((range, destination)) = self.segments.get(self.segment) else {
                return Err(SafetensorsError::TooLong);
            };
            let count = (range.end - self.position).min(piece.len());
            if let Some(start) = destination {
                let from = start + (self.position - range.start);
                let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut self.values);
                bytes[from..from + count].copy_from_slice(&piece[..count]);
                check_finite(&self.layout, &self.values, from / 4..(from + count) / 4)?;
            }
            *piece = &piece[count..];
            self.position += count;
            if self.position == range.end {
                self.segment += 1;
            }
        }
        // Empty tensors at the end leave nothing to wait for.
        Ok(())
    }
}

/// Whether every value in `range` is finite.
///
/// # Errors
///
/// [`SafetensorsError::NotFinite`] names the first tensor that has a NaN or an infinity.
pub fn check_finite(
    layout: &Layout,
    values: &[f32],
    range: Range<usize>,
) -> Result<(), SafetensorsError> {
    const EXPONENT: u32 = 0x7f80_0000;
    let block = &values[range.clone()];
    // Without an early exit the loop vectorizes.
    if block.iter().fold(false, |bad, value| {
        bad | (value.to_bits() & EXPONENT == EXPONENT)
    }) {
        let offset = range.start
            + block
                .iter()
                .position(|value| !value.is_finite())
                .unwrap_or(0);
        let name = layout
            .tensors()
            .iter()
            .find(|spec| spec.range().contains(&offset))
            .map(|spec| spec.name.clone());
        return Err(SafetensorsError::NotFinite {
            name: name.unwrap_or_default(),
        });
    }
    Ok(())
}

fn file_roles(metadata: &Metadata) -> Option<BTreeMap<String, Role>> {
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
    /// The header is longer than any honest one.
    #[error("a header of {length} bytes, more than the limit of {limit}")]
    HeaderTooLarge {
        /// What the body claims.
        length: u64,
        /// What is taken.
        limit: usize,
    },
    /// More values than are taken.
    #[error("{announced} bytes of values are announced, more than the limit of {limit}")]
    TooLarge {
        /// What the header says.
        announced: u64,
        /// What is taken.
        limit: u64,
    },
    /// Values of a type that is not taken.
    #[error("tensor {name:?} is {found}, not F32")]
    Dtype {
        /// The tensor.
        name: String,
        /// Its type.
        found: String,
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
            let mut decoder = Decoder::new(parameters.layout().clone(), "");
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
            let mut decoder = Decoder::new(parameters.layout().clone(), "");
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
            Err(SafetensorsError::HeaderTooLarge { .. })
        ));
        let mut garbage = bytes.clone();
        garbage[9] = b'!';
        assert!(matches!(
            decode_as(&garbage),
            Err(SafetensorsError::Malformed(_))
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
        assert_eq!(error.to_string(), "tensor \"bn.running_mean\" is missing");
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
