//! Reading and writing parameters block by block, so that no layer has to hold a whole model.

use crate::Cause;
use std::{ops::Range, sync::Arc};

use half::{bf16, f16, slice::HalfFloatSliceExt};
use thiserror::Error;

use super::{Layout, Parameters};

/// A source of parameters that can be read in any order and from several threads.
///
/// # Contract
///
/// 1. The values do not change as long as the reader exists: a scan and the fold after it get the same bits.
/// 2. Calls from several threads at the same time, in any order, give the same values as one after the other.
/// 3. `block` has the values that `read` fills in, to the bit once they are decoded.
/// 4. A range past the layout's end is [`BlockError::OutOfRange`] and never a panic.
pub trait BlockReader: Sync {
    /// The layout of what is read.
    fn layout(&self) -> &Arc<Layout>;

    /// Fills `block` with the values from `offset` on.
    ///
    /// # Errors
    ///
    /// [`BlockError::OutOfRange`] past the layout's end; [`BlockError::Unreadable`] if the storage fails.
    fn read(&self, offset: usize, block: &mut [f32]) -> Result<(), BlockError>;

    /// The end of the longest [`Block`] that begins at `offset`: the next value after it is stored in another way. Above
    /// `offset`, and at most the layout's length.
    fn uniform_end(&self, _offset: usize) -> usize {
        self.layout().len()
    }

    /// The values of a range as they are stored, which must not go beyond [`BlockReader::uniform_end`]: a fold then decodes and adds in one pass, and copies nothing that is
    /// in memory anyway. `buffer` is there for what has to be fetched; this default fetches and decodes everything.
    ///
    /// # Errors
    ///
    /// As [`BlockReader::read`].
    fn block<'a>(
        &'a self,
        range: Range<usize>,
        buffer: &'a mut BlockBuffer,
    ) -> Result<Block<'a>, BlockError> {
        let values = buffer.values(range.len());
        self.read(range.start, values)?;
        Ok(Block::F32(values))
    }
}

/// A destination of parameters.
///
/// # Contract
///
/// 1. Each value is written exactly once, in blocks that come in any order and do not overlap.
/// 2. A fold writes the blocks of [`Layout::blocks`]: each within one role, of at most [`FOLD_BLOCK`](super::FOLD_BLOCK) values.
/// 3. A block past the layout's end is [`BlockError::OutOfRange`] and never a panic.
/// 4. After an error nothing more is written, and what was written counts for nothing.
pub trait BlockWriter: Send {
    /// Takes the values from `offset` on.
    ///
    /// # Errors
    ///
    /// [`BlockError::OutOfRange`] past the layout's end; [`BlockError::Unwritable`] if the storage fails.
    fn write(&mut self, offset: usize, block: &[f32]) -> Result<(), BlockError>;
}

/// The values of a range, in the encoding that they are stored in ([`super::Encoding`]).
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Block<'a> {
    /// As they are.
    F32(&'a [f32]),
    /// IEEE half precision.
    F16(&'a [f16]),
    /// The upper half of an f32.
    Bf16(&'a [bf16]),
    /// Value `i` is `values[i] * scales[(skip + i) / GROUP]` with [`super::GROUP`] values to a scale.
    Int8 {
        /// One for each value.
        values: &'a [i8],
        /// One for each group that the range touches.
        scales: &'a [f32],
        /// How many values of its group are before the first one.
        skip: usize,
    },
    /// The values that are not zero.
    Sparse {
        /// The index of each, in rising order.
        indices: &'a [u32],
        /// One for each index.
        values: &'a [f32],
        /// The index that the range's first value has.
        start: usize,
    },
    /// As they are.
    F64(&'a [f64]),
    /// As they are.
    U32(&'a [u32]),
    /// As they are.
    U64(&'a [u64]),
}

impl Block<'_> {
    /// The values themselves, of a range as long as `out`.
    pub fn decode(&self, out: &mut [f32]) {
        match *self {
            Self::F32(values) => out.copy_from_slice(values),
            Self::F16(values) => values.convert_to_f32_slice(out),
            Self::Bf16(values) => values.convert_to_f32_slice(out),
            Self::Int8 {
                values,
                scales,
                skip,
            } => {
                for (range, scale) in groups(values.len(), skip).zip(scales) {
                    for (out, value) in out[range.clone()].iter_mut().zip(&values[range]) {
                        *out = scale * f32::from(*value);
                    }
                }
            }
            Self::F64(values) => {
                for (out, value) in out.iter_mut().zip(values) {
                    *out = *value as f32;
                }
            }
            Self::U32(values) => {
                for (out, value) in out.iter_mut().zip(values) {
                    *out = *value as f32;
                }
            }
            Self::U64(values) => {
                for (out, value) in out.iter_mut().zip(values) {
                    *out = *value as f32;
                }
            }
            Self::Sparse {
                indices,
                values,
                start,
            } => {
                // `out` is used again from block to block, and has the values of the one before.
                out.fill(0.0);
                for (index, value) in indices.iter().zip(values) {
                    out[*index as usize - start] = *value;
                }
            }
        }
    }
}

/// The stretches of one scale each in a range of `len` values that begins `skip` values into its first group.
pub(crate) fn groups(len: usize, skip: usize) -> impl Iterator<Item = Range<usize>> {
    let count = (skip + len).div_ceil(super::GROUP);
    (0..count).map(move |group| group_start(group, skip, len)..group_start(group + 1, skip, len))
}

/// The beginning of a group, counted from the beginning of the range.
fn group_start(group: usize, skip: usize, len: usize) -> usize {
    (group * super::GROUP).saturating_sub(skip).min(len)
}

/// Space for one block, kept from block to block. It begins at a multiple of eight bytes.
#[derive(Debug, Default)]
pub struct BlockBuffer(Vec<u64>);

impl BlockBuffer {
    /// Space for this many bytes; what is in it is left over from before.
    pub fn bytes(&mut self, len: usize) -> &mut [u8] {
        let words = len.div_ceil(size_of::<u64>());
        if self.0.len() < words {
            self.0.resize(words, 0);
        }
        &mut bytemuck::cast_slice_mut(&mut self.0)[..len]
    }

    /// Space for this many values; what is in it is left over from before.
    pub fn values(&mut self, len: usize) -> &mut [f32] {
        bytemuck::cast_slice_mut(self.bytes(len * size_of::<f32>()))
    }
}

/// Why a block could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BlockError {
    /// The range ends past the layout's end.
    #[error("block {range:?} is outside of the {len} values there are")]
    OutOfRange {
        /// The range asked for.
        range: Range<usize>,
        /// The number of values.
        len: usize,
    },
    /// The storage under the reader failed.
    #[error("parameters are unreadable: {0}")]
    Unreadable(#[source] Cause),
    /// The storage under the writer failed.
    #[error("parameters are unwritable: {0}")]
    Unwritable(#[source] Cause),
    /// The storage under the writer has no room left.
    #[error("no room for parameters: {0}")]
    Full(#[source] Cause),
}

/// The range of a block, if it is within `len` values.
pub(crate) fn checked(offset: usize, block: usize, len: usize) -> Result<Range<usize>, BlockError> {
    // An offset near the largest number must be an error here, not a small end after it wraps around.
    let range = offset..offset.saturating_add(block);
    if range.end > len {
        Err(BlockError::OutOfRange { range, len })
    } else {
        Ok(range)
    }
}

impl BlockReader for Parameters {
    fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    fn read(&self, offset: usize, block: &mut [f32]) -> Result<(), BlockError> {
        block.copy_from_slice(&self.values[checked(offset, block.len(), self.values.len())?]);
        Ok(())
    }

    fn block<'a>(
        &'a self,
        range: Range<usize>,
        _buffer: &'a mut BlockBuffer,
    ) -> Result<Block<'a>, BlockError> {
        let range = checked(range.start, range.len(), self.values.len())?;
        Ok(Block::F32(&self.values[range]))
    }
}

impl BlockWriter for Parameters {
    fn write(&mut self, offset: usize, block: &[f32]) -> Result<(), BlockError> {
        let range = checked(offset, block.len(), self.values.len())?;
        self.values[range].copy_from_slice(block);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::Role;

    #[test]
    fn blocks_outside_of_the_layout_are_errors() {
        let layout = Layout::new([("a".to_string(), vec![4], Role::Trainable)]).unwrap();
        let mut parameters = Parameters::new(layout, vec![1.0, 2.0, 3.0, 4.0]).unwrap();
        let mut block = [0.0; 2];
        parameters.read(2, &mut block).unwrap();
        assert_eq!(block, [3.0, 4.0]);
        assert_eq!(
            parameters.read(3, &mut block),
            Err(BlockError::OutOfRange {
                range: 3..5,
                len: 4
            })
        );
        assert!(parameters.write(usize::MAX, &block).is_err());
        let mut buffer = BlockBuffer::default();
        assert!(parameters.block(2..5, &mut buffer).is_err());
    }

    #[test]
    fn groups_cover_a_range_once() {
        let ranges: Vec<_> = groups(600, 200).collect();
        assert_eq!(ranges, [0..56, 56..312, 312..568, 568..600]);
        assert_eq!(groups(0, 0).count(), 0);
    }
}
