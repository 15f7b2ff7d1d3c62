//! Reads an encoded payload block by block, wherever its bytes are.

use std::{fmt, ops::Range, sync::Arc};

use bytes::Bytes;

use super::EncodingError;
use super::{
    Form,
    form::{Kind, is_stride},
};
use crate::{
    Cause,
    parameters::{
        Block, BlockBuffer, BlockError, BlockReader, DType, Digest, Digesting, Layout, Parameters,
        checked, safetensors::SafetensorsError,
    },
};

/// Values of a payload, by type.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Values {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// 64-bit floats.
    F64(Vec<f64>),
    /// Unsigned 32-bit integers.
    U32(Vec<u32>),
    /// Unsigned 64-bit integers.
    U64(Vec<u64>),
}

impl Values {
    /// Their type.
    pub fn dtype(&self) -> DType {
        match self {
            Self::F32(_) => DType::F32,
            Self::F64(_) => DType::F64,
            Self::U32(_) => DType::U32,
            Self::U64(_) => DType::U64,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.as_bytes().len() / self.dtype().size()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.as_bytes().is_empty()
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::F32(values) => bytemuck::cast_slice(values),
            Self::F64(values) => bytemuck::cast_slice(values),
            Self::U32(values) => bytemuck::cast_slice(values),
            Self::U64(values) => bytemuck::cast_slice(values),
        }
    }

    fn is_finite(&self) -> bool {
        match self {
            Self::F32(values) => values.iter().all(|value| value.is_finite()),
            Self::F64(values) => values.iter().all(|value| value.is_finite()),
            Self::U32(_) | Self::U64(_) => true,
        }
    }
}

/// The bytes of a payload, readable in any order and from several threads.
pub trait PayloadSource: Send + Sync {
    /// Fills `bytes` with those from `offset` on.
    ///
    /// # Errors
    ///
    /// [`BlockError::Unreadable`].
    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), BlockError>;

    /// The bytes themselves, if they are in memory; the payload begins at a multiple of four bytes there.
    fn borrow(&self, _range: Range<u64>) -> Option<&[u8]> {
        None
    }
}

/// An encoded model or delta. Clones share the payload if the source's clones do.
#[derive(Debug, Clone)]
pub struct EncodedReader<S> {
    form: Arc<Form>,
    source: S,
    /// Where the payload begins in the source.
    base: u64,
}

/// An encoded model or delta in memory.
pub type Encoded = EncodedReader<Memory>;

impl<S: PayloadSource> EncodedReader<S> {
    /// The payload of this form in a source, whose bytes have been checked as they came.
    pub fn new(form: Form, source: S) -> Self {
        Self::at(form, source, 0)
    }

    /// The payload of this form that begins at this byte of a source.
    pub fn at(form: Form, source: S, base: u64) -> Self {
        Self {
            form: Arc::new(form),
            source,
            base,
        }
    }

    /// What the payload looks like.
    pub fn form(&self) -> &Form {
        &self.form
    }

    /// Where it is.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Both stretches of the payload, borrowed or fetched.
    fn fetch<'a>(
        &'a self,
        [first, second]: [Range<u64>; 2],
        buffer: &'a mut BlockBuffer,
    ) -> Result<[&'a [u8]; 2], BlockError> {
        let at = |range: &Range<u64>| self.base + range.start..self.base + range.end;
        let borrowed = [
            self.source.borrow(at(&first)),
            self.source.borrow(at(&second)),
        ];
        if let [Some(first), Some(second)] = borrowed
            && self.is_aligned(first)
        {
            return Ok([first, second]);
        }
        let lengths = [&first, &second].map(|range| (range.end - range.start) as usize);
        let begin = lengths[0].next_multiple_of(8);
        let bytes = buffer.bytes(begin + lengths[1]);
        self.source
            .read(at(&first).start, &mut bytes[..lengths[0]])?;
        if lengths[1] > 0 {
            self.source.read(at(&second).start, &mut bytes[begin..])?;
        }
        let (head, tail) = bytes.split_at(begin);
        Ok([&head[..lengths[0]], tail])
    }

    /// Whether bytes in memory can be taken for values as they are. Of types with eight bytes that is not certain.
    fn is_aligned(&self, bytes: &[u8]) -> bool {
        self.form.dtype().size() <= 4 || bytemuck::try_cast_slice::<u8, u64>(bytes).is_ok()
    }
}

impl<S: PayloadSource> BlockReader for EncodedReader<S> {
    fn layout(&self) -> &Arc<Layout> {
        self.form.layout()
    }

    fn read(&self, offset: usize, block: &mut [f32]) -> Result<(), BlockError> {
        let range = checked(offset, block.len(), self.layout().len())?;
        if self.form.is_plain() {
            let bytes = bytemuck::cast_slice_mut(block);
            return self.source.read(self.base + 4 * offset as u64, bytes);
        }
        let mut buffer = BlockBuffer::default();
        let mut start = range.start;
        while start < range.end {
            let end = self.form.uniform_end(start).min(range.end);
            let part = &mut block[start - offset..end - offset];
            self.block(start..end, &mut buffer)?.decode(part);
            start = end;
        }
        Ok(())
    }

    fn uniform_end(&self, offset: usize) -> usize {
        self.form.uniform_end(offset)
    }

    fn block<'a>(
        &'a self,
        range: Range<usize>,
        buffer: &'a mut BlockBuffer,
    ) -> Result<Block<'a>, BlockError> {
        let Some(places) = self.form.places(&range)? else {
            // Tensors that the payload does not have count as zeros.
            return Ok(Block::Sparse {
                indices: &[],
                values: &[],
                start: 0,
            });
        };
        let [first, second] = self.fetch([places.first, places.second], buffer)?;
        Ok(match places.kind {
            Kind::F32 => Block::F32(bytemuck::cast_slice(first)),
            Kind::F16 => Block::F16(bytemuck::cast_slice(first)),
            Kind::Bf16 => Block::Bf16(bytemuck::cast_slice(first)),
            Kind::F64 => Block::F64(bytemuck::cast_slice(first)),
            Kind::U32 => Block::U32(bytemuck::cast_slice(first)),
            Kind::U64 => Block::U64(bytemuck::cast_slice(first)),
            Kind::Int8 => Block::Int8 {
                values: bytemuck::cast_slice(second),
                scales: bytemuck::cast_slice(first),
                skip: places.skip,
            },
            Kind::Sparse => {
                let indices: &[u32] = bytemuck::cast_slice(second);
                let values: &[f32] = bytemuck::cast_slice(first);
                let wanted = places.trainable;
                // The directory is exact at multiples of its stride, where blocks of the fold begin and end: searching there
                // would cost more than the sum.
                let (mut from, mut to) = (0, indices.len());
                if !is_stride(wanted.start) {
                    from = indices.partition_point(|index| (*index as usize) < wanted.start);
                }
                if !is_stride(wanted.end) {
                    to = indices.partition_point(|index| (*index as usize) < wanted.end);
                }
                Block::Sparse {
                    indices: &indices[from..to],
                    values: &values[from..to],
                    start: wanted.start,
                }
            }
        })
    }
}

impl Encoded {
    /// Parameters as they are, without a copy.
    pub fn plain(parameters: Arc<Parameters>) -> Self {
        let form = Form::file(parameters.layout().clone());
        Self::new(form, Memory::plain(parameters))
    }

    /// Values as they are, which a form without an encoding has as many of; without a copy.
    ///
    /// # Errors
    ///
    /// [`EncodingError::Malformed`] if type or number differ from the form's, or a value is not finite.
    pub fn values(form: Form, values: Values) -> Result<Self, EncodingError> {
        let bytes = values.as_bytes().len() as u64;
        if values.dtype() != form.dtype() || bytes != form.bytes() || form.is_sparse() {
            let found = format!("{} values of {:?}", values.len(), values.dtype());
            let expected = format!("{} bytes of {:?}", form.bytes(), form.dtype());
            let detail = format!("{found} for a payload of {expected}");
            return Err(SafetensorsError::Malformed(detail).into());
        }
        if !values.is_finite() {
            let name = form.layout().tensors()[0].name.clone();
            return Err(SafetensorsError::NotFinite { name }.into());
        }
        Ok(Self::new(form, Memory(Content::Values(Arc::new(values)))))
    }

    /// The values themselves, zeros for tensors that the payload does not have; without a copy, if they are in memory as they are.
    ///
    /// # Errors
    ///
    /// None that the payload's check would not have found.
    pub fn decode(&self) -> Result<Arc<Parameters>, BlockError> {
        if let (Content::Parameters(parameters), true) = (&self.source.0, self.form.is_plain()) {
            return Ok(parameters.clone());
        }
        let mut values = vec![0.0; self.layout().len()];
        self.read(0, &mut values)?;
        Parameters::new(self.layout().clone(), values)
            .map(Arc::new)
            .map_err(|error| BlockError::Unreadable(Cause::of(error)))
    }

    /// The whole body as pieces, without a copy of the payload: header and payload.
    pub fn pieces(&self, prefix: &str) -> [Bytes; 2] {
        let payload = Bytes::from_owner(self.source.clone());
        [Bytes::from(self.form.header(prefix)), payload]
    }

    /// The digest of the whole body. Reads all of the payload, which takes a while if it is large.
    pub fn digest(&self, prefix: &str) -> Digest {
        let header = self.form.header(prefix);
        let mut digest = Digesting::default();
        digest.update(&header);
        digest.update(self.source.as_ref());
        digest.finish()
    }
}

/// A payload in memory. Clones share it.
#[derive(Clone)]
pub struct Memory(Content);

#[derive(Clone)]
enum Content {
    Parameters(Arc<Parameters>),
    /// Words, so that the payload begins at a multiple of four bytes; and which bytes of them count.
    Words(Arc<Vec<u32>>, Range<usize>),
    Values(Arc<Values>),
}

impl Memory {
    /// Values as they are.
    pub(super) fn plain(parameters: Arc<Parameters>) -> Self {
        Self(Content::Parameters(parameters))
    }

    /// The first `bytes` of these words.
    pub(super) fn words(words: Vec<u32>, bytes: usize) -> Self {
        Self::part(Arc::new(words), 0..bytes)
    }

    /// These bytes of words that others share.
    pub(super) fn part(words: Arc<Vec<u32>>, bytes: Range<usize>) -> Self {
        Self(Content::Words(words, bytes))
    }
}

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        match &self.0 {
            Content::Parameters(parameters) => bytemuck::cast_slice(parameters.values()),
            Content::Words(words, bytes) => &bytemuck::cast_slice(words)[bytes.clone()],
            Content::Values(values) => values.as_bytes(),
        }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Memory({} bytes)", self.as_ref().len())
    }
}

impl PayloadSource for Memory {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), BlockError> {
        let range = offset..offset + bytes.len() as u64;
        let found = self
            .borrow(range)
            .ok_or_else(|| BlockError::Unreadable("the payload is too short".into()))?;
        bytes.copy_from_slice(found);
        Ok(())
    }

    fn borrow(&self, range: Range<u64>) -> Option<&[u8]> {
        self.as_ref().get(range.start as usize..range.end as usize)
    }
}
