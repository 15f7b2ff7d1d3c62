//! What deals examples to clients, and what it may know of them.

use rand_chacha::ChaCha8Rng;

use super::PartitionError;

/// Deals examples to clients.
///
/// # Contract
///
/// For any `examples` and `clients`, an implementation either refuses or returns lists for which all of this holds:
///
/// 1. There are exactly `clients` lists; list `i` is client `i`'s.
/// 2. Together they have each of `0..examples.count()` exactly once.
/// 3. No list is empty.
/// 4. Each list is in ascending order.
/// 5. The same arguments give the same lists, and the same refusals: randomness comes from `rng` alone.
///
/// It never panics. `partition::conformance` (feature `testing`) checks all of this.
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
