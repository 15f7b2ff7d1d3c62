//! Files and bodies of f32: a whole model as it is in memory.

use std::sync::Arc;

use super::SafetensorsError;
use crate::parameters::{
    BodyDecoder, BodyForm, Encoding, EncodingError, Form, HeaderLimits, Layout, MemorySink,
    Parameters,
};

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
    let all = bytes.len() as u64;
    // No more values than there are bytes: a short file can announce any number of them.
    let mut decoder = Decoder::any().with_limit(all);
    match decoder.push(bytes) {
        Ok(()) => decoder.finish(),
        // To the caller, such a file ended early.
        Err(SafetensorsError::TooLarge { announced, .. }) => Err(SafetensorsError::Truncated {
            missing: announced - all,
        }),
        Err(error) => Err(error),
    }
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
    /// [`SafetensorsError::Truncated`] if the body ended early.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::{HeaderError, Role};

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
    fn a_short_file_that_announces_much_takes_no_space_for_it() {
        let header =
            br#"{"w":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header);
        assert!(matches!(
            decode(&bytes),
            Err(SafetensorsError::Truncated { missing }) if missing > 3_999_999_999_000
        ));
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
