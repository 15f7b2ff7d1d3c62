//! What deals examples to clients, and what it may know of them.

use std::sync::atomic::{AtomicBool, Ordering};

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
/// 6. If it can take longer than a second, it asks [`Examples::check_cancelled`] about as often, and ends with that refusal.
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

/// What a partitioner may know of the examples: how many there are, mostly their labels, and whether anybody still wants
/// them dealt.
#[derive(Debug, Clone, Copy)]
pub struct Examples<'a> {
    count: usize,
    labels: Option<&'a [u16]>,
    cancelled: Option<&'a AtomicBool>,
}

impl<'a> Examples<'a> {
    /// Examples whose labels are known; example `i` has label `labels[i]`.
    pub fn labelled(labels: &'a [u16]) -> Self {
        Self {
            count: labels.len(),
            labels: Some(labels),
            cancelled: None,
        }
    }

    /// `count` examples whose labels are not known here. Partitioners that need labels refuse them.
    pub fn unlabelled(count: usize) -> Self {
        Self {
            count,
            labels: None,
            cancelled: None,
        }
    }

    /// The same examples, which are dealt only as long as this flag is not set: a million clients take minutes.
    pub fn until(self, cancelled: &'a AtomicBool) -> Self {
        Self {
            cancelled: Some(cancelled),
            ..self
        }
    }

    /// Looks at the flag. Partitioners ask in every loop whose length grows with clients times labels.
    ///
    /// # Errors
    ///
    /// [`PartitionError::Cancelled`] if it is set.
    pub fn check_cancelled(&self) -> Result<(), PartitionError> {
        match self.cancelled {
            // Relaxed: the flag is all that is said.
            Some(cancelled) if cancelled.load(Ordering::Relaxed) => Err(PartitionError::Cancelled),
            _ => Ok(()),
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
