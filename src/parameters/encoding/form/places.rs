//! The places of a range of values among the bytes of a payload.

use std::ops::Range;

use super::{Form, Kind, Section, directory::STRIDE};
use crate::parameters::{BlockError, GROUP};

/// The bytes of a range of values: two stretches if an encoding keeps two things of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Places {
    pub kind: Kind,
    /// Scales of int8, values of a sparse payload; all values of others.
    pub first: Range<u64>,
    /// Integers of int8, indices of a sparse payload.
    pub second: Range<u64>,
    /// Of int8: how many values of the first group are before the range.
    pub skip: usize,
    /// Of a sparse payload: the trainable values of the range.
    pub trainable: Range<usize>,
}

impl Form {
    /// The end of the longest block from this value on that is stored in one way.
    pub(crate) fn uniform_end(&self, offset: usize) -> usize {
        match self.section_from(offset) {
            Some(section) if section.values.start <= offset => section.values.end,
            // Up to the next section are tensors that the payload does not have.
            Some(section) => section.values.start,
            None => self.layout.len(),
        }
    }

    /// The places of the values of a range; none if the payload does not have them.
    ///
    /// # Errors
    ///
    /// [`BlockError::OutOfRange`] if the range is not stored in one way, or goes past the layout's end.
    pub(crate) fn places(&self, range: &Range<usize>) -> Result<Option<Places>, BlockError> {
        let len = self.layout.len();
        let end = self.uniform_end(range.start).max(range.start);
        if range.end > len || range.end > end {
            let range = range.clone();
            return Err(BlockError::OutOfRange { range, len });
        }
        let Some(section) = self.section_from(range.start) else {
            return Ok(None);
        };
        if section.values.start > range.start {
            return Ok(None);
        }
        Ok(Some(match section.kind {
            Kind::Int8 => self.int8_places(section, range),
            Kind::Sparse => self.sparse_places(section, range),
            kind => Places {
                kind,
                first: self.byte_of(section, range.start)..self.byte_of(section, range.end),
                second: 0..0,
                skip: 0,
                trainable: 0..0,
            },
        }))
    }

    fn int8_places(&self, section: &Section, range: &Range<usize>) -> Places {
        let start = range.start - section.values.start;
        let end = range.end - section.values.start;
        let first_scale = (section.first + start / GROUP) as u64;
        // The scale of the last group, also if the range ends inside of it.
        let last_scale = (section.first + end.div_ceil(GROUP)) as u64;
        Places {
            kind: Kind::Int8,
            first: 4 * first_scale..4 * last_scale,
            second: self.byte_of(section, range.start)..self.byte_of(section, range.end),
            skip: start % GROUP,
            trainable: 0..0,
        }
    }

    /// The entries between the directory's strides around the range: if the range begins or ends between two strides, there are
    /// entries outside of it among them.
    fn sparse_places(&self, section: &Section, range: &Range<usize>) -> Places {
        let start = section.first + range.start - section.values.start;
        let end = section.first + range.end - section.values.start;
        let first = self.entries_below(start / STRIDE);
        // A directory that does not rise would be a broken one. An empty range is then better than a panic.
        let last = self.entries_below(end.div_ceil(STRIDE)).max(first);
        let indices = 4 * self.entries as u64;
        Places {
            kind: Kind::Sparse,
            first: 4 * first..4 * last,
            second: indices + 4 * first..indices + 4 * last,
            skip: 0,
            trainable: start..end,
        }
    }

    /// How many entries are below this multiple of the stride: all, if the directory ends before it.
    fn entries_below(&self, stride: usize) -> u64 {
        match self.directory.get(stride) {
            Some(count) => u64::from(*count),
            None => self.entries as u64,
        }
    }
}
