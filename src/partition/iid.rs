//! Independent and identically distributed clients.

use rand_chacha::ChaCha8Rng;

use super::deal::{ascending, check_counts, even_sizes, hand_out, shuffled};
use super::{Examples, PartitionError, Partitioner};

/// Every client gets a random sample of the same size; sizes differ by one at most.
///
/// This is the IID setting of McMahan et al., *Communication-Efficient Learning of Deep Networks from Decentralized
/// Data* (2017, arXiv:1602.05629).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Iid;

impl Partitioner for Iid {
    fn partition(
        &self,
        examples: Examples<'_>,
        clients: usize,
        mut rng: ChaCha8Rng,
    ) -> Result<Vec<Vec<u32>>, PartitionError> {
        check_counts(examples.count(), clients)?;
        let mut lists = vec![Vec::new(); clients];
        let indices = shuffled(examples.count(), &mut rng);
        hand_out(&indices, &even_sizes(indices.len(), clients), &mut lists);
        Ok(ascending(lists))
    }
}
