//! Takes a safetensors body in pieces and hands its payload on, checked.

use std::{ops::Range, sync::Arc};

use ::safetensors::tensor::{Dtype, Metadata, TensorInfo};
use thiserror::Error;

use super::{
    Encoded, EncodedReader, Encoding, Form, Memory,
    form::{Directory, INDICES, SCALES, VALUES},
};
use crate::parameters::{
    BlockError, Digest, Digesting, Layout, LayoutError, Parameters,
    safetensors::{HeaderReader, SafetensorsError, is_batch_counter, role_of, roles_of},
};

/// Takes the payload of a body as it passes.
pub trait BodySink {
    /// Told once, before the first byte, what will come; of a sparse payload without its directory.
    ///
    /// # Errors
    ///
    /// [`BlockError::Full`] where there is no room for it.
    fn begin(&mut self, form: &Form) -> Result<(), BlockError>;

    /// Takes the bytes of the payload from `offset` on. Each byte comes once, mostly in order.
    ///
    /// # Errors
    ///
    /// [`BlockError::Unwritable`] and [`BlockError::Full`].
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), BlockError>;
}

/// Takes a safetensors body in pieces of any size: checks layout, length, finiteness and, at the end, the digest, and
/// hands the payload on to a sink.
#[derive(Debug)]
pub struct BodyDecoder {
    encoding: Encoding,
    expected: Option<Arc<Layout>>,
    prefix: &'static str,
    limit: u64,
    digest: Digesting,
    state: State,
}

#[derive(Debug)]
enum State {
    Header(HeaderReader),
    Payload(Payload),
    Failed,
}

#[derive(Debug)]
struct Payload {
    form: Form,
    /// In the order of the body.
    segments: Vec<Segment>,
    segment: usize,
    position: u64,
    total: u64,
    elements: Elements,
    directory: Directory,
}

/// A stretch of the body.
#[derive(Debug)]
struct Segment {
    bytes: Range<u64>,
    /// `None`: passed over.
    target: Option<Target>,
}

#[derive(Debug)]
struct Target {
    /// Where in the payload the segment begins.
    start: u64,
    /// What each of its elements must be.
    check: Check,
    /// The tensor's name, without the prefix.
    name: String,
}

#[derive(Debug, Clone, Copy)]
enum Check {
    Finite32,
    /// A float whose exponent has these bits.
    Finite16(u16),
    Scale,
    Index,
    Any,
}

/// The bytes of an element whose end has not come yet.
#[derive(Debug, Default)]
struct Elements {
    bytes: [u8; 4],
    len: usize,
}

impl BodyDecoder {
    /// For a body in this encoding; its names have `prefix` in front. Without an expected layout, the body's own is
    /// taken, which a sparse one does not have.
    pub fn new(encoding: Encoding, expected: Option<Arc<Layout>>, prefix: &'static str) -> Self {
        let header = HeaderReader::new(expected.as_deref());
        Self {
            encoding,
            expected,
            prefix,
            limit: u64::MAX,
            digest: Digesting::default(),
            state: State::Header(header),
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
    /// [`EncodingError`], at the first piece that shows it; the decoder then stays failed.
    pub fn push(&mut self, mut piece: &[u8], sink: &mut dyn BodySink) -> Result<(), EncodingError> {
        self.digest.update(piece);
        let result = self.try_push(&mut piece, sink);
        if result.is_err() {
            self.state = State::Failed;
        }
        result
    }

    fn try_push(
        &mut self,
        piece: &mut &[u8],
        sink: &mut dyn BodySink,
    ) -> Result<(), EncodingError> {
        if let State::Header(header) = &mut self.state {
            let Some(metadata) = header.push(piece)? else {
                return Ok(());
            };
            let announced = metadata.data_len() as u64;
            if announced > self.limit {
                let limit = self.limit;
                return Err(SafetensorsError::TooLarge { announced, limit }.into());
            }
            let payload = match self.encoding {
                Encoding::TopK { .. } => self.sparse(&metadata)?,
                _ => self.dense(&metadata)?,
            };
            sink.begin(&payload.form)?;
            self.state = State::Payload(payload);
        }
        match &mut self.state {
            State::Payload(payload) => payload.push(piece, sink),
            _ => Err(SafetensorsError::failed_before().into()),
        }
    }

    /// The form of the payload, once the whole body has been taken, and its digest where one was announced.
    ///
    /// # Errors
    ///
    /// [`SafetensorsError::Truncated`] where the body ended early, [`SafetensorsError::Digest`] where it is not the one
    /// that was sent.
    pub fn finish(self, announced: Option<Digest>) -> Result<Form, EncodingError> {
        let payload = match self.state {
            State::Payload(payload) => payload,
            State::Header(_) => return Err(SafetensorsError::Truncated { missing: 1 }.into()),
            State::Failed => return Err(SafetensorsError::failed_before().into()),
        };
        if payload.position < payload.total {
            let missing = payload.total - payload.position;
            return Err(SafetensorsError::Truncated { missing }.into());
        }
        let found = self.digest.finish();
        if let Some(announced) = announced.filter(|announced| *announced != found) {
            return Err(SafetensorsError::Digest { announced, found }.into());
        }
        let entries = payload.form.entries();
        Ok(match self.encoding {
            Encoding::TopK { .. } => payload.form.sparse(entries, payload.directory.finish()),
            _ => payload.form,
        })
    }

    fn dense(&self, metadata: &Metadata) -> Result<Payload, EncodingError> {
        let (dtype, size, check) = match self.encoding {
            Encoding::F16 => (Dtype::F16, 2, Check::Finite16(0x7c00)),
            Encoding::Bf16 => (Dtype::BF16, 2, Check::Finite16(0x7f80)),
            Encoding::Int8 => (Dtype::I8, 1, Check::Any),
            _ => (Dtype::F32, 4, Check::Finite32),
        };
        let roles = roles_of(metadata);
        let (mut tensors, mut segments, mut scales) = (Vec::new(), Vec::new(), None);
        for full_name in metadata.offset_keys() {
            let info = info(metadata, &full_name)?;
            let bytes = info.data_offsets.0 as u64..info.data_offsets.1 as u64;
            if is_batch_counter(&full_name) && info.dtype == Dtype::I64 {
                segments.push((bytes, None));
                continue;
            }
            let Some(name) = full_name.strip_prefix(self.prefix) else {
                return Err(LayoutError::Unexpected { name: full_name }.into());
            };
            if self.encoding == Encoding::Int8 && name == SCALES {
                expect(name, info.dtype, Dtype::F32)?;
                scales = Some(info.shape.clone());
                segments.push((bytes, Some((name.to_string(), Check::Scale))));
                continue;
            }
            expect(name, info.dtype, dtype)?;
            let role = role_of(roles.as_ref(), &full_name, name);
            tensors.push((name.to_string(), info.shape.clone(), role));
            segments.push((bytes, Some((name.to_string(), check))));
        }
        let found = Layout::new(tensors)?;
        let layout = match &self.expected {
            Some(expected) => {
                expected.check_same(&found)?;
                expected.clone()
            }
            None => found,
        };
        let form = Form::new(self.encoding, layout.clone());
        let base = match self.encoding {
            Encoding::Int8 => {
                let bytes = form.scales_bytes();
                check_shape(scales, SCALES, vec![bytes as usize / 4])?;
                bytes
            }
            _ => 0,
        };
        let place = |(bytes, target): (Range<u64>, Option<(String, Check)>)| {
            let target = target.map(|(name, check)| Target {
                start: match layout.find(&name) {
                    Some(spec) => base + size * spec.range().start as u64,
                    None => 0,
                },
                check,
                name,
            });
            Segment { bytes, target }
        };
        let segments = segments.into_iter().map(place).collect();
        Ok(Payload::new(form, segments, metadata.data_len() as u64))
    }

    fn sparse(&self, metadata: &Metadata) -> Result<Payload, EncodingError> {
        let Some(layout) = self.expected.clone() else {
            return Err(
                SafetensorsError::Malformed("a sparse body has no layout".to_string()).into(),
            );
        };
        let form = Form::new(self.encoding, layout);
        let (mut found, mut shapes) = (Vec::new(), [None, None]);
        for full_name in metadata.offset_keys() {
            let info = info(metadata, &full_name)?;
            let bytes = info.data_offsets.0 as u64..info.data_offsets.1 as u64;
            let (name, check) = match full_name.strip_prefix(self.prefix) {
                Some(VALUES) => {
                    expect(VALUES, info.dtype, Dtype::F32)?;
                    shapes[0] = Some(info.shape.clone());
                    (VALUES, Check::Finite32)
                }
                Some(INDICES) => {
                    expect(INDICES, info.dtype, Dtype::U32)?;
                    shapes[1] = Some(info.shape.clone());
                    (INDICES, Check::Index)
                }
                _ => return Err(LayoutError::Unexpected { name: full_name }.into()),
            };
            found.push((bytes, name, check));
        }
        let [values, indices] = shapes;
        let missing = || LayoutError::Missing {
            name: VALUES.to_string(),
        };
        let values = values.ok_or_else(missing)?;
        check_shape(indices, INDICES, values.clone())?;
        let &[entries] = &values[..] else {
            let detail = format!("{VALUES} has shape {values:?}, not one side");
            return Err(SafetensorsError::Malformed(detail).into());
        };
        let limit = form.entries();
        if entries > limit {
            return Err(SafetensorsError::Entries {
                found: entries,
                limit,
            }
            .into());
        }
        let place = |(bytes, name, check): (Range<u64>, &str, Check)| {
            let start = match name {
                INDICES => 4 * entries as u64,
                _ => 0,
            };
            let target = Some(Target {
                start,
                check,
                name: name.to_string(),
            });
            Segment { bytes, target }
        };
        let segments = found.into_iter().map(place).collect();
        let form = form.sparse(entries, Vec::new());
        Ok(Payload::new(form, segments, metadata.data_len() as u64))
    }
}

fn info<'a>(metadata: &'a Metadata, name: &str) -> Result<&'a TensorInfo, SafetensorsError> {
    metadata
        .info(name)
        .ok_or_else(|| SafetensorsError::Malformed(name.to_string()))
}

fn expect(name: &str, found: Dtype, expected: Dtype) -> Result<(), SafetensorsError> {
    match found == expected {
        true => Ok(()),
        false => Err(SafetensorsError::Dtype {
            name: name.to_string(),
            found: format!("{found:?}"),
            expected: format!("{expected:?}"),
        }),
    }
}

fn check_shape(
    found: Option<Vec<usize>>,
    name: &str,
    expected: Vec<usize>,
) -> Result<(), LayoutError> {
    let name = name.to_string();
    match found {
        None => Err(LayoutError::Missing { name }),
        Some(found) if found != expected => Err(LayoutError::Shape {
            name,
            expected,
            found,
        }),
        Some(_) => Ok(()),
    }
}

impl Payload {
    fn new(form: Form, segments: Vec<Segment>, total: u64) -> Self {
        Self {
            form,
            segments,
            segment: 0,
            position: 0,
            total,
            elements: Elements::default(),
            directory: Directory::default(),
        }
    }

    fn push(&mut self, piece: &mut &[u8], sink: &mut dyn BodySink) -> Result<(), EncodingError> {
        // Empty tensors, at the end too, leave nothing to wait for.
        while !piece.is_empty() {
            let Some(segment) = self.segments.get(self.segment) else {
                return Err(SafetensorsError::TooLong.into());
            };
            let left = segment.bytes.end - self.position;
            let count = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let (bytes, rest) = piece.split_at(count);
            if let Some(Target { start, check, name }) = &segment.target {
                let len = self.form.layout().len();
                if !self.elements.check(*check, bytes, len, &mut self.directory) {
                    return Err(check.failure(name).into());
                }
                sink.write(start + (self.position - segment.bytes.start), bytes)?;
            }
            *piece = rest;
            self.position += count as u64;
            if self.position == segment.bytes.end {
                self.segment += 1;
            }
        }
        Ok(())
    }
}

impl Check {
    fn failure(self, name: &str) -> SafetensorsError {
        let name = name.to_string();
        match self {
            Self::Scale => SafetensorsError::Scale { name },
            Self::Index => SafetensorsError::Index { name },
            _ => SafetensorsError::NotFinite { name },
        }
    }
}

impl Elements {
    /// Whether every element that ends in `bytes` is what it must be.
    fn check(&mut self, check: Check, bytes: &[u8], len: usize, directory: &mut Directory) -> bool {
        const EXPONENT: u32 = 0x7f80_0000;
        // Without an early exit the loops vectorize.
        match check {
            Check::Any => true,
            Check::Finite32 => self.each::<4>(bytes, |elements| {
                !elements.iter().fold(false, |bad, element| {
                    bad | (u32::from_le_bytes(*element) & EXPONENT == EXPONENT)
                })
            }),
            Check::Finite16(exponent) => self.each::<2>(bytes, |elements| {
                !elements.iter().fold(false, |bad, element| {
                    bad | (u16::from_le_bytes(*element) & exponent == exponent)
                })
            }),
            // Not negative, finite, and of at most 16 significant bits.
            Check::Scale => self.each::<4>(bytes, |elements| {
                !elements.iter().fold(false, |bad, element| {
                    let bits = u32::from_le_bytes(*element);
                    bad | (bits >= EXPONENT) | (bits & 0xff != 0)
                })
            }),
            Check::Index => self.each::<4>(bytes, |elements| {
                elements
                    .iter()
                    .all(|element| directory.take(u32::from_le_bytes(*element), len))
            }),
        }
    }

    /// Calls `check` with the element that was begun before, and with all whole ones of `bytes`.
    fn each<const N: usize>(
        &mut self,
        mut bytes: &[u8],
        mut check: impl FnMut(&[[u8; N]]) -> bool,
    ) -> bool {
        if self.len > 0 {
            let count = (N - self.len).min(bytes.len());
            self.bytes[self.len..self.len + count].copy_from_slice(&bytes[..count]);
            self.len += count;
            bytes = &bytes[count..];
            if self.len < N {
                return true;
            }
            self.len = 0;
            let (elements, _) = self.bytes[..N].as_chunks();
            if !check(elements) {
                return false;
            }
        }
        let (elements, rest) = bytes.as_chunks();
        self.bytes[..rest.len()].copy_from_slice(rest);
        self.len = rest.len();
        check(elements)
    }
}

/// A payload taken into memory.
#[derive(Debug, Default)]
pub struct MemorySink(Vec<u32>);

impl BodySink for MemorySink {
    fn begin(&mut self, form: &Form) -> Result<(), BlockError> {
        self.0 = vec![0; (form.bytes() as usize).div_ceil(4)];
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), BlockError> {
        let payload: &mut [u8] = bytemuck::cast_slice_mut(&mut self.0);
        payload[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
}

impl MemorySink {
    /// The payload, which the decoder says is of this form.
    pub fn finish(self, form: Form) -> Encoded {
        let bytes = form.bytes() as usize;
        EncodedReader::new(form, Memory::words(self.0, bytes))
    }

    /// The values, where they are f32.
    ///
    /// # Errors
    ///
    /// [`LayoutError::Length`] for another encoding.
    pub(crate) fn into_parameters(self, form: &Form) -> Result<Parameters, LayoutError> {
        Parameters::new(form.layout().clone(), bytemuck::cast_vec(self.0))
    }
}

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
}

impl From<LayoutError> for EncodingError {
    fn from(error: LayoutError) -> Self {
        Self::Malformed(error.into())
    }
}
