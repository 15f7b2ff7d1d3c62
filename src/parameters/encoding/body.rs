//! Takes a safetensors body in pieces and hands its payloads on, checked.

use std::{collections::HashMap, ops::Range, sync::Arc};

use ::safetensors::tensor::{Dtype, Metadata, TensorInfo};
use thiserror::Error;

use super::{
    BodyForm, EncodedReader, Encoding, Form, Memory, Payloads,
    form::{Directory, Entry, INDICES, Kind, SCALES, VALUES},
    payloads::prefix_of,
};
use crate::parameters::{
    BlockError, BlockReader, Digest, Digesting, HeaderLimits, Layout, LayoutError, Parameters,
    Role, Roles,
    safetensors::{HeaderReader, SafetensorsError, is_batch_counter, role_of, roles_of},
};

/// Takes the payloads of a body as they pass.
pub trait BodySink {
    /// Told once, before the first byte, what will come; of sparse payloads without their directory.
    ///
    /// # Errors
    ///
    /// [`BlockError::Full`] if there is no room for it.
    fn begin(&mut self, form: &BodyForm) -> Result<(), BlockError>;

    /// Takes stored bytes from `offset` on, counted from the first payload's beginning; [`BodyForm::bases`] says where each
    /// payload begins. Each byte of a payload comes once, mostly in order.
    ///
    /// # Errors
    ///
    /// [`BlockError::Unwritable`] and [`BlockError::Full`].
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), BlockError>;
}

/// Takes a safetensors body in pieces of any size: checks payloads, layouts, length, finiteness and, at the end, the digest,
/// and hands the payloads on to a sink.
#[derive(Debug)]
pub struct BodyDecoder {
    expected: Expected,
    limit: u64,
    digest: Digesting,
    state: State,
}

/// What a body must be.
#[derive(Debug)]
enum Expected {
    Body(Arc<BodyForm>),
    /// A payload with this name, or a model without one, of any layout, whose trainable tensors are in this encoding.
    Any(String, Encoding),
}

#[derive(Debug)]
enum State {
    Header(HeaderReader),
    Payload(Payload),
    Failed,
}

#[derive(Debug)]
struct Payload {
    form: BodyForm,
    /// In the order of the body.
    segments: Vec<Segment>,
    segment: usize,
    position: u64,
    total: u64,
    elements: Elements,
    /// One for each part; only sparse ones take indices.
    directories: Vec<Directory>,
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
    /// Where in the stored bytes the segment begins.
    start: u64,
    /// Which payload it is of.
    part: usize,
    /// What each of its elements must be.
    check: Check,
    /// The tensor's name, without the prefix.
    name: String,
}

#[derive(Debug, Clone, Copy)]
enum Check {
    Finite64,
    Finite32,
    /// A float whose exponent has these bits.
    Finite16(u16),
    Scale,
    Index,
    Any,
}

impl Check {
    /// What the elements of a tensor must be.
    fn of(entry: &Entry) -> Self {
        if entry.is_front && entry.name == SCALES {
            return Self::Scale;
        }
        if entry.is_front && entry.name == INDICES {
            return Self::Index;
        }
        match entry.kind {
            Kind::F32 | Kind::Sparse => Self::Finite32,
            Kind::F16 => Self::Finite16(0x7c00),
            Kind::Bf16 => Self::Finite16(0x7f80),
            Kind::F64 => Self::Finite64,
            Kind::Int8 | Kind::U32 | Kind::U64 => Self::Any,
        }
    }
}

/// The bytes of an element whose end has not come yet.
#[derive(Debug, Default)]
struct Elements {
    bytes: [u8; 8],
    len: usize,
}

impl BodyDecoder {
    /// For a body that must be of this form: its payloads, no more and no fewer, of sparse ones at most as many entries.
    /// Frozen tensors that a payload has beyond its form are passed over.
    pub fn new(expected: Arc<BodyForm>) -> Self {
        let headers = expected.parts().iter().map(|part| part.form.layout());
        let header = HeaderReader::new(headers.map(|layout| &**layout));
        Self::with(Expected::Body(expected), header)
    }

    /// For a model of any layout, in this encoding. Roles are those that the file names; without them, BatchNorm's
    /// `running_mean` and `running_var` are buffers and all else is trainable. A sparse model can't be taken.
    pub fn any_model(encoding: Encoding) -> Self {
        Self::any_payload("", encoding)
    }

    /// For one payload with this name, of any layout, in this encoding, as a version offers it beside the model. Roles are as in
    /// [`BodyDecoder::any_model`].
    pub fn any_payload(name: &str, encoding: Encoding) -> Self {
        let expected = Expected::Any(name.to_string(), encoding);
        Self::with(expected, HeaderReader::new([]))
    }

    fn with(expected: Expected, header: HeaderReader) -> Self {
        Self {
            expected,
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

    /// Takes a header within these limits alone, for a body of any layout that comes from outside. The defaults count without
    /// it. To be called before the first piece.
    pub fn with_header_limits(mut self, limits: HeaderLimits) -> Self {
        self.state = State::Header(HeaderReader::within(limits));
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
            let form = match &self.expected {
                Expected::Body(form) => with_entries(form, &metadata)?,
                Expected::Any(name, encoding) => {
                    BodyForm::one(name, any_form(name, *encoding, &metadata)?)
                }
            };
            let payload = Payload::new(form, &metadata)?;
            sink.begin(&payload.form)?;
            self.state = State::Payload(payload);
        }
        match &mut self.state {
            State::Payload(payload) => payload.push(piece, sink),
            _ => Err(SafetensorsError::failed_before().into()),
        }
    }

    /// The form of the body, once all of it has been taken, and its digest if one was announced.
    ///
    /// # Errors
    ///
    /// [`SafetensorsError::Truncated`] if the body ended early, [`SafetensorsError::Digest`] if it is not the one that was sent.
    pub fn finish(self, announced: Option<Digest>) -> Result<BodyForm, EncodingError> {
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
        let mut parts = payload.form.parts().to_vec();
        for (part, directory) in parts.iter_mut().zip(payload.directories) {
            if part.form.is_sparse() {
                let entries = part.form.entries();
                part.form = part.form.clone().sparse(entries, directory.finish());
            }
        }
        Ok(BodyForm::new(parts))
    }
}

/// The form with as many entries of each sparse payload as the body has.
fn with_entries(expected: &BodyForm, metadata: &Metadata) -> Result<BodyForm, EncodingError> {
    let mut parts = expected.parts().to_vec();
    for part in &mut parts {
        if !part.form.is_sparse() {
            continue;
        }
        let name = format!("{}{VALUES}", part.prefix());
        let Some(values) = metadata.info(&name) else {
            return Err(LayoutError::Missing { name }.into());
        };
        let &[entries] = &values.shape[..] else {
            let detail = format!("{name} has shape {:?}, not one side", values.shape);
            return Err(SafetensorsError::Malformed(detail).into());
        };
        let limit = part.form.entries();
        if entries > limit {
            let found = entries;
            return Err(SafetensorsError::Entries { found, limit }.into());
        }
        part.form = part.form.clone().sparse(entries, Vec::new());
    }
    Ok(BodyForm::new(parts))
}

/// The form of a payload whose layout only its own header says.
fn any_form(payload: &str, encoding: Encoding, metadata: &Metadata) -> Result<Form, EncodingError> {
    if !encoding.is_dense() {
        let detail = "a sparse body has no layout".to_string();
        return Err(SafetensorsError::Malformed(detail).into());
    }
    let roles = roles_of(metadata);
    let mut tensors = Vec::new();
    let prefix = prefix_of(payload);
    for full_name in metadata.offset_keys() {
        let info = info(metadata, &full_name)?;
        let Some(name) = full_name.strip_prefix(&prefix) else {
            return Err(LayoutError::Unexpected { name: full_name }.into());
        };
        let name = name.to_string();
        let is_scales = encoding == Encoding::Int8 && name == SCALES;
        if is_scales || (is_batch_counter(&name) && info.dtype == Dtype::I64) {
            continue;
        }
        let role = role_of(roles.as_ref(), &name, &name);
        tensors.push((name, info.shape.clone(), role));
    }
    Ok(Form::new(encoding, Layout::new(tensors)?, Roles::ALL))
}

fn info<'a>(metadata: &'a Metadata, name: &str) -> Result<&'a TensorInfo, SafetensorsError> {
    metadata
        .info(name)
        .ok_or_else(|| SafetensorsError::Malformed(name.to_string()))
}

impl Payload {
    /// Finds a place for each tensor of a body, and that none is missing.
    fn new(form: BodyForm, metadata: &Metadata) -> Result<Self, EncodingError> {
        let bases = form.bases();
        let mut places: HashMap<String, (usize, Entry)> = HashMap::new();
        for (index, part) in form.parts().iter().enumerate() {
            let prefix = part.prefix();
            for entry in part.form.tensors() {
                places.insert(format!("{prefix}{}", entry.name), (index, entry));
            }
        }
        let mut segments = Vec::new();
        for full_name in metadata.offset_keys() {
            let info = info(metadata, &full_name)?;
            let bytes = info.data_offsets.0 as u64..info.data_offsets.1 as u64;
            let Some((part, entry)) = places.remove(&full_name) else {
                if !is_passed_over(&form, &full_name, info) {
                    return Err(LayoutError::Unexpected { name: full_name }.into());
                }
                let target = None;
                segments.push(Segment { bytes, target });
                continue;
            };
            if format!("{:?}", info.dtype) != entry.dtype {
                return Err(SafetensorsError::Dtype {
                    name: full_name,
                    found: format!("{:?}", info.dtype),
                    expected: entry.dtype.to_string(),
                }
                .into());
            }
            if info.shape != entry.shape {
                return Err(LayoutError::Shape {
                    name: full_name,
                    expected: entry.shape,
                    found: info.shape.clone(),
                }
                .into());
            }
            let target = Some(Target {
                start: bases[part] + entry.bytes.start,
                part,
                check: Check::of(&entry),
                name: full_name,
            });
            segments.push(Segment { bytes, target });
        }
        if let Some(name) = places.into_keys().min() {
            return Err(LayoutError::Missing { name }.into());
        }
        Ok(Self {
            directories: form.parts().iter().map(|_| Directory::default()).collect(),
            form,
            segments,
            segment: 0,
            position: 0,
            total: metadata.data_len() as u64,
            elements: Elements::default(),
        })
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
            if let Some(Target {
                start,
                part,
                check,
                name,
            }) = &segment.target
            {
                let len = self.form.parts()[*part].form.trainable();
                let directory = &mut self.directories[*part];
                if !self.elements.check(*check, bytes, len, directory) {
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

/// Whether a tensor that no payload's form has is one that bodies may have anyway: PyTorch's counter of batches, or a tensor of
/// the layout that the form leaves out.
fn is_passed_over(form: &BodyForm, full_name: &str, info: &TensorInfo) -> bool {
    if is_batch_counter(full_name) && info.dtype == Dtype::I64 {
        return true;
    }
    for part in form.parts() {
        let Some(name) = full_name.strip_prefix(&part.prefix()) else {
            continue;
        };
        let left_out = part.form.layout().find(name);
        if left_out
            .is_some_and(|spec| spec.role == Role::Frozen && !part.form.roles().contains(spec.role))
        {
            return true;
        }
    }
    false
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
            Check::Finite64 => self.each::<8>(bytes, |elements| {
                const EXPONENT: u64 = 0x7ff0_0000_0000_0000;
                !elements.iter().fold(false, |bad, element| {
                    bad | (u64::from_le_bytes(*element) & EXPONENT == EXPONENT)
                })
            }),
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

/// Payloads taken into memory.
#[derive(Debug, Default)]
pub struct MemorySink(Vec<u32>);

impl BodySink for MemorySink {
    fn begin(&mut self, form: &BodyForm) -> Result<(), BlockError> {
        self.0 = vec![0; (form.stored_bytes() as usize).div_ceil(4)];
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), BlockError> {
        let payload: &mut [u8] = bytemuck::cast_slice_mut(&mut self.0);
        payload[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
}

impl MemorySink {
    /// The payloads, which the decoder says are of this form.
    pub fn finish(self, form: BodyForm) -> Payloads {
        let words = Arc::new(self.0);
        let mut payloads = Vec::with_capacity(form.parts().len());
        for (part, base) in form.parts().iter().zip(form.bases()) {
            let bytes = base as usize..(base + part.form.bytes()) as usize;
            let encoded = EncodedReader::new(part.form.clone(), Memory::part(words.clone(), bytes));
            payloads.push((part.name.clone(), encoded));
        }
        Payloads::new(payloads)
    }

    /// The values of a body with one payload, decoded; without a copy, if they are a whole model as it is.
    ///
    /// # Errors
    ///
    /// [`LayoutError::Length`] if the body has no payload.
    pub(crate) fn into_parameters(self, form: BodyForm) -> Result<Parameters, LayoutError> {
        let empty = LayoutError::Length {
            expected: 1,
            found: 0,
        };
        let only = form.parts().first().ok_or_else(|| empty.clone())?;
        if only.form.is_plain() {
            return Parameters::new(only.form.layout().clone(), bytemuck::cast_vec(self.0));
        }
        let payloads = self.finish(form);
        let (_, encoded) = payloads.iter().next().ok_or(empty)?;
        let mut values = Parameters::zeros(encoded.layout().clone());
        // Memory does not fail, and the form has been checked.
        let _ = encoded.read(0, values.values_mut());
        Ok(values)
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
