//! Reads an encoded payload block by block, wherever its bytes are.

use std::{fmt, ops::Range, sync::Arc};

use bytes::Bytes;

use super::{Encoding, Form};
use crate::parameters::{Block, BlockBuffer, BlockError, BlockReader, Layout, Parameters, checked};

/// The bytes of a payload, readable in any order and from several threads.
pub trait PayloadSource: Send + Sync {
    /// Fills `bytes` with those from `offset` on.
    ///
    /// # Errors
    ///
    /// [`BlockError::Unreadable`].
    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), BlockError>;

    /// The bytes themselves, where they are in memory; the payload begins at a multiple of four bytes there.
    fn borrow(&self, _range: Range<u64>) -> Option<&[u8]> {
        None
    }
}

/// An encoded model or delta. Clones share the payload where the source's clones do.
#[derive(Debug, Clone)]
pub struct EncodedReader<S> {
    form: Arc<Form>,
    source: S,
}

/// An encoded model or delta in memory.
pub type Encoded = EncodedReader<Memory>;

impl<S: PayloadSource> EncodedReader<S> {
    /// The payload of this form in a source, whose bytes have been checked as they came.
    pub fn new(form: Form, source: S) -> Self {
        Self {
            form: Arc::new(form),
            source,
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
        let borrowed = (
            self.source.borrow(first.clone()),
            self.source.borrow(second.clone()),
        );
        if let (Some(first), Some(second)) = borrowed {
            return Ok([first, second]);
        }
        let lengths = [&first, &second].map(|range| (range.end - range.start) as usize);
        let begin = lengths[0].next_multiple_of(4);
        let bytes = buffer.bytes(begin + lengths[1]);
        self.source.read(first.start, &mut bytes[..lengths[0]])?;
        if lengths[1] > 0 {
            self.source.read(second.start, &mut bytes[begin..])?;
        }
        let (head, tail) = bytes.split_at(begin);
        Ok([&head[..lengths[0]], tail])
    }
}

impl<S: PayloadSource> BlockReader for EncodedReader<S> {
    fn layout(&self) -> &Arc<Layout> {
        self.form.layout()
    }

    fn read(&self, offset: usize, block: &mut [f32]) -> Result<(), BlockError> {
        let range = checked(offset, block.len(), self.layout().len())?;
        if let Encoding::F32 = self.form.encoding() {
            let bytes = bytemuck::cast_slice_mut(block);
            return self.source.read(4 * offset as u64, bytes);
        }
        let mut buffer = BlockBuffer::default();
        self.block(range, &mut buffer)?.decode(block);
        Ok(())
    }

    fn block<'a>(
        &'a self,
        range: Range<usize>,
        buffer: &'a mut BlockBuffer,
    ) -> Result<Block<'a>, BlockError> {
        let [first, second] = self.fetch(self.form.places(&range)?, buffer)?;
        Ok(match self.form.encoding() {
            Encoding::F32 => Block::F32(bytemuck::cast_slice(first)),
            Encoding::F16 => Block::F16(bytemuck::cast_slice(first)),
            Encoding::Bf16 => Block::Bf16(bytemuck::cast_slice(first)),
            Encoding::Int8 => Block::Int8 {
                values: bytemuck::cast_slice(second),
                scales: bytemuck::cast_slice(first),
                skip: range.start % super::GROUP,
            },
            Encoding::TopK { .. } => {
                let indices: &[u32] = bytemuck::cast_slice(second);
                let values: &[f32] = bytemuck::cast_slice(first);
                let from = indices.partition_point(|index| (*index as usize) < range.start);
                let to = indices.partition_point(|index| (*index as usize) < range.end);
                Block::Sparse {
                    indices: &indices[from..to],
                    values: &values[from..to],
                    start: range.start,
                }
            }
        })
    }
}

impl Encoded {
    /// Parameters as they are, without a copy.
    pub fn plain(parameters: Arc<Parameters>) -> Self {
        let form = Form::new(Encoding::F32, parameters.layout().clone());
        Self::new(form, Memory(Content::Parameters(parameters)))
    }

    /// The values themselves; without a copy, where they are in memory as they are.
    ///
    /// # Errors
    ///
    /// None that the payload's check would not have found.
    pub fn decode(&self) -> Result<Arc<Parameters>, BlockError> {
        if let Content::Parameters(parameters) = &self.source.0 {
            return Ok(parameters.clone());
        }
        let mut values = vec![0.0; self.layout().len()];
        self.read(0, &mut values)?;
        Parameters::new(self.layout().clone(), values)
            .map(Arc::new)
            .map_err(|error| BlockError::Unreadable(error.to_string()))
    }

    /// The whole body as pieces, without a copy of the payload: header and payload.
    pub fn pieces(&self, prefix: &str) -> [Bytes; 2] {
        let payload = Bytes::from_owner(self.source.clone());
        [Bytes::from(self.form.header(prefix)), payload]
    }
}

/// A payload in memory. Clones share it.
#[derive(Clone)]
pub struct Memory(Content);

#[derive(Clone)]
enum Content {
    Parameters(Arc<Parameters>),
    /// Words, so that the payload begins at a multiple of four bytes; and how many bytes of them count.
    Words(Arc<Vec<u32>>, usize),
}

impl Memory {
    /// The first `bytes` of these words.
    pub(super) fn words(words: Vec<u32>, bytes: usize) -> Self {
        Self(Content::Words(Arc::new(words), bytes))
    }
}

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        match &self.0 {
            Content::Parameters(parameters) => bytemuck::cast_slice(parameters.values()),
            Content::Words(words, bytes) => &bytemuck::cast_slice(words)[..*bytes],
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
            .ok_or_else(|| BlockError::Unreadable("the payload is too short".to_string()))?;
        bytes.copy_from_slice(found);
        Ok(())
    }

    fn borrow(&self, range: Range<u64>) -> Option<&[u8]> {
        self.as_ref().get(range.start as usize..range.end as usize)
    }
}
