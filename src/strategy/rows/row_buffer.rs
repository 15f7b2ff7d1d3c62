//! Space for the values of one report.

use std::ops::Range;

use crate::parameters::{Block, BlockBuffer, BlockError, BlockReader};

/// Space for one report's values.
#[derive(Default)]
pub(in crate::strategy) struct RowBuffer {
    fetched: BlockBuffer,
    values: Vec<f32>,
}

impl RowBuffer {
    /// The values of a range, which must be one of the reader's layout.
    pub fn fetch<'a>(
        &'a mut self,
        reader: &'a (dyn BlockReader + Send + Sync),
        range: Range<usize>,
    ) -> Result<&'a [f32], BlockError> {
        // What is in memory as f32 is not copied.
        if reader.uniform_end(range.start) >= range.end
            && let Block::F32(values) = reader.block(range.clone(), &mut self.fetched)?
        {
            return Ok(values);
        }
        self.values.resize(range.len(), 0.0);
        reader.read(range.start, &mut self.values)?;
        Ok(&self.values)
    }
}
