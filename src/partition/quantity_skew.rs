//! Clients of uneven size.

use rand_chacha::ChaCha8Rng;

use super::deal::{
    ascending, check_alpha, check_counts, dirichlet_proportions, hand_out, shuffled,
    sizes_by_proportion, top_up,
};
use super::{Examples, PartitionError, Partitioner};

/// Every client gets a random sample, of a size drawn from a symmetric Dirichlet distribution over the clients.
///
/// *Quantity skew* of Li et al., *Federated Learning on Non-IID Data Silos* (2022, arXiv:2102.02079). A client that
/// would get nothing gets one random example of the largest client.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QuantitySkew {
    alpha: f64,
}

impl QuantitySkew {
    /// A partitioner of concentration `alpha`, which must be positive and finite.
    pub fn new(alpha: f64) -> Result<Self, PartitionError> {
        check_alpha(alpha)?;
        Ok(Self { alpha })
    }
}

impl Partitioner for QuantitySkew {
    fn partition(
        &self,
        examples: Examples<'_>,
        clients: usize,
        mut rng: ChaCha8Rng,
    ) -> Result<Vec<Vec<u32>>, PartitionError> {
        check_counts(examples.count(), clients)?;
        let mut lists = vec![Vec::new(); clients];
        let indices = shuffled(examples.count(), &mut rng);
        let proportions = dirichlet_proportions(clients, self.alpha, &mut rng);
        hand_out(
            &indices,
            &sizes_by_proportion(indices.len(), &proportions),
            &mut lists,
        );
        top_up(&mut lists, 1, &mut rng);
        Ok(ascending(lists))
    }
}
