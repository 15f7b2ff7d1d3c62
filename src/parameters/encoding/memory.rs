//! A payload in memory.

use std::{fmt, ops::Range, sync::Arc};

use super::{PayloadSource, Values};
use crate::parameters::{BlockError, Parameters};

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
    /// Typed values as they are.
    pub(super) fn values(values: Values) -> Self {
        Self(Content::Values(Arc::new(values)))
    }

    /// The parameters, if these are what it holds.
    pub(super) fn parameters(&self) -> Option<&Arc<Parameters>> {
        match &self.0 {
            Content::Parameters(parameters) => Some(parameters),
            Content::Words(..) | Content::Values(_) => None,
        }
    }

    /// Parameters as they are.
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
            .ok_or_else(|| past_the_end(offset, bytes.len(), self.as_ref().len()))?;
        bytes.copy_from_slice(found);
        Ok(())
    }

    fn borrow(&self, range: Range<u64>) -> Option<&[u8]> {
        self.as_ref().get(range.start as usize..range.end as usize)
    }
}

fn past_the_end(offset: u64, count: usize, len: usize) -> BlockError {
    let detail =
        format!("{count} bytes from byte {offset} on were asked for, and the payload has {len}");
    BlockError::Unreadable(detail.into())
}
