//! What deals examples to clients, and what it may know of them.

use rand_chacha::ChaCha8Rng;

use super::PartitionError;

/// Deals examples to clients.
///
/// # Contract
///
/// For any `examples` and `clients` an implementation either refuses, or returns exactly `clients` lists that together
/// hold each of `0..examples.count()` once, each list ascending and not empty. It draws from `rng` only: the same
/// arguments give the same lists. `partition::conformance` (feature `testing`) checks this.
pub trait Partitioner: std::fmt::Debug + Send + Sync {
    /// Deals `examples` to `clients` clients; list `i` is client `i`'s.
    fn partition(
        &self,
        examples: Examples<'_>,
        clients: usize,
        rng: ChaCha8Rng,
    ) -> Result<Vec<Vec<u32>>, PartitionError>;
}

/// What a partitioner may know of the examples: how many there are and, mostly, their labels.
#[derive(Debug, Clone, Copy)]
pub struct Examples<'a> {
    count: usize,
    labels: Option<&'a [u16]>,
}

impl<'a> Examples<'a> {
    /// Examples whose labels are known; example `i` has label `labels[i]`.
    pub fn labelled(labels: &'a [u16]) -> Self {
        Self {
            count: labels.len(),
            labels: Some(labels),
        }
    }

    /// `count` examples whose labels are not known here. Partitioners that need labels refuse them.
    pub fn unlabelled(count: usize) -> Self {
        Self {
            count,
            labels: None,
        }
    }

    /// How many examples there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The label of each example, if known.
    pub fn labels(&self) -> Option<&'a [u16]> {
        self.labels
    }
}
