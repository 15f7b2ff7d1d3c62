//! Clients whose sizes follow the hardware of their workers.

use rand_chacha::ChaCha8Rng;

use super::deal::{ascending, check_counts, hand_out, shuffled, top_up};
use super::{Examples, PartitionError, Partitioner};

/// Every client gets a random sample whose size follows `max(1, gpu_count)` of its worker: a worker with four GPUs gets
/// four times as much as one with a single GPU, and as one with none.
///
/// Sizes are less than one example from their exact share, and at least 1. Clients still differ in nothing but size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proportional {
    gpu_counts: Vec<u32>,
}

impl Proportional {
    /// A partitioner for clients with these GPU counts, in client order.
    pub fn new(gpu_counts: &[u32]) -> Self {
        Self {
            gpu_counts: gpu_counts.to_vec(),
        }
    }

    fn sizes(&self, examples: usize) -> Vec<usize> {
        let share = |&gpus: &u32| u128::from(gpus.max(1));
        let sum: u128 = self.gpu_counts.iter().map(share).sum();
        let mut cumulated = 0;
        let mut from = 0;
        self.gpu_counts
            .iter()
            .map(|gpus| {
                cumulated += share(gpus);
                let to = (examples as u128 * cumulated / sum) as usize;
                let size = to - from;
                from = to;
                size
            })
            .collect()
    }
}

impl Partitioner for Proportional {
    fn partition(
        &self,
        examples: Examples<'_>,
        clients: usize,
        mut rng: ChaCha8Rng,
    ) -> Result<Vec<Vec<u32>>, PartitionError> {
        check_counts(examples.count(), clients)?;
        if self.gpu_counts.len() != clients {
            return Err(PartitionError::GpuCounts {
                given: self.gpu_counts.len(),
                clients,
            });
        }
        let mut lists = vec![Vec::new(); clients];
        let indices = shuffled(examples.count(), &mut rng);
        hand_out(&indices, &self.sizes(indices.len()), &mut lists);
        top_up(&mut lists, 1, &mut rng);
        Ok(ascending(lists))
    }
}
