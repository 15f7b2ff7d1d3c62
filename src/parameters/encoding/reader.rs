//! Reads an encoded payload block by block, from memory or from a file.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;

use super::{
    EncodingError, Form, Memory, PayloadSource, Values,
    form::{Kind, is_stride},
};
use crate::{
    Cause,
    parameters::{
        Block, BlockBuffer, BlockError, BlockReader, Digest, Digesting, Layout, Parameters,
        checked, safetensors::SafetensorsError,
    },
};

/// An encoded model or delta. Clones share the payload if the source's clones do.
#[derive(Debug, Clone)]
pub struct EncodedReader<S> {
    form: Arc<Form>,
    source: S,
    /// The offset of the payload's first byte in the source.
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

    /// The source of its bytes.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Both stretches of the payload, borrowed or fetched.
    fn fetch<'a>(
        &'a self,
        [first, second]: [Range<u64>; 2],
        buffer: &'a mut BlockBuffer,
    ) -> Result<[&'a [u8]; 2], BlockError> {
        let first = self.base + first.start..self.base + first.end;
        let second = self.base + second.start..self.base + second.end;
        if let Some(first) = self.source.borrow(first.clone())
            && let Some(second) = self.source.borrow(second.clone())
            // Borrowed if they are in memory: a fold then reads each report once and copies nothing.
            && self.is_aligned(first)
        {
            return Ok([first, second]);
        }
        let first_len = (first.end - first.start) as usize;
        let second_len = (second.end - second.start) as usize;
        // Both begin at a multiple of the widest value's size.
        let begin = first_len.next_multiple_of(8);
        let bytes = buffer.bytes(begin + second_len);
        self.source.read(first.start, &mut bytes[..first_len])?;
        if second_len > 0 {
            self.source.read(second.start, &mut bytes[begin..])?;
        }
        let (head, tail) = bytes.split_at(begin);
        Ok([&head[..first_len], tail])
    }

    /// Whether bytes in memory can be used as values without a copy. For types with eight bytes that is not certain.
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
        // Straight into the caller's block.
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
                let (values, indices) = (bytemuck::cast_slice(first), bytemuck::cast_slice(second));
                sparse_block(values, indices, places.trainable)
            }
        })
    }
}

/// The entries of the wanted trainable values, out of those between the strides around them.
fn sparse_block<'a>(values: &'a [f32], indices: &'a [u32], wanted: Range<usize>) -> Block<'a> {
    let (mut from, mut to) = (0, indices.len());
    // At a stride nothing is to be cut off. The fold's blocks begin and end there, and a search would cost more than their sum.
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
            let detail = format!(
                "there are {} values of {:?}, and the payload has {} bytes of {:?}",
                values.len(),
                values.dtype(),
                form.bytes(),
                form.dtype()
            );
            return Err(SafetensorsError::Malformed(detail).into());
        }
        // As the checks of a body do, so that a trainer in this process can't send what one over HTTP could not.
        if !values.is_finite() {
            let name = form.layout().tensors()[0].name.clone();
            return Err(SafetensorsError::NotFinite { name }.into());
        }
        Ok(Self::new(form, Memory::values(values)))
    }

    /// The values themselves, zeros for tensors that the payload does not have; without a copy, if they are in memory as they are.
    ///
    /// # Errors
    ///
    /// None that the payload's check would not have found.
    pub fn decode(&self) -> Result<Arc<Parameters>, BlockError> {
        if let Some(parameters) = self.source.parameters()
            && self.form.is_plain()
        {
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
