//! The directory of a sparse payload: how many of its indices are below each multiple of a stride, so that the entries of a block
//! are found without a search.

/// How many trainable values there are between two entries of a directory. It is the length of the fold's blocks, so that those
/// of a model with one large tensor begin and end at an entry.
pub(crate) const STRIDE: usize = 1 << 16;

/// Whether a place among the trainable values is one at which the directory of a sparse payload is exact.
pub(crate) fn is_stride(place: usize) -> bool {
    place.is_multiple_of(STRIDE)
}

/// Counts the indices of a sparse payload as they pass.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    counts: Vec<u32>,
    taken: u32,
    next: u64,
}

impl Directory {
    /// Takes the next index, if it is above the one before and below `len`.
    pub fn take(&mut self, index: u32, len: usize) -> bool {
        if u64::from(index) < self.next || index as usize >= len {
            return false;
        }
        while self.counts.len() * STRIDE <= index as usize {
            self.counts.push(self.taken);
        }
        self.taken += 1;
        self.next = u64::from(index) + 1;
        true
    }

    /// How many of the indices are below each multiple of [`STRIDE`], as far as there are indices.
    pub fn finish(self) -> Vec<u32> {
        self.counts
    }
}
