//! Reading and writing parameters block by block, so that no layer has to hold a whole model.

use std::{ops::Range, sync::Arc};

use thiserror::Error;

use super::{Layout, Parameters};

/// A source of parameters that can be read in any order and from several threads.
pub trait BlockReader: Sync {
    /// The layout of what is read.
    fn layout(&self) -> &Arc<Layout>;

    /// Fills `block` with the values from `offset` on.
    ///
    /// # Errors
    ///
    /// [`BlockError::OutOfRange`] past the layout's end; [`BlockError::Unreadable`] where the storage fails.
    fn read(&self, offset: usize, block: &mut [f32]) -> Result<(), BlockError>;

    /// The values themselves, where they are in memory anyway: a fold then copies nothing. `None` says nothing about
    /// whether they can be read.
    fn borrow(&self, _range: Range<usize>) -> Option<&[f32]> {
        None
    }
}

/// A destination of parameters. Each value is written exactly once, in blocks that come in any order.
pub trait BlockWriter: Send {
    /// Takes the values from `offset` on.
    ///
    /// # Errors
    ///
    /// [`BlockError::OutOfRange`] past the layout's end; [`BlockError::Unwritable`] where the storage fails.
    fn write(&mut self, offset: usize, block: &[f32]) -> Result<(), BlockError>;
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
    Unreadable(String),
    /// The storage under the writer failed.
    #[error("parameters are unwritable: {0}")]
    Unwritable(String),
}

fn checked(offset: usize, block: usize, len: usize) -> Result<Range<usize>, BlockError> {
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

    fn borrow(&self, range: Range<usize>) -> Option<&[f32]> {
        self.values.get(range)
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
    }
}
