//! Clients whose sizes follow what their workers can do.

use rand_chacha::ChaCha8Rng;

use super::deal::{ascending, check_counts, hand_out, shuffled, sizes_by_share};
use super::{Examples, PartitionError, Partitioner};

/// Every client gets a random sample whose size follows its *capacity*: what its worker can do, in any unit, as long as
/// it is the same for all. A client with four times the capacity gets four times as much.
///
/// Sizes are within one example of their exact share, and at least 1; if the least makes a client larger than its
/// share, it is at the expense of the largest. Clients still differ in nothing but size. The random order of the
/// examples does not depend on the capacities: others move the cuts, and most examples stay with their client.
#[derive(Debug, Clone, PartialEq)]
pub struct Proportional {
    capacities: Vec<f64>,
}

impl Proportional {
    /// A partitioner for clients with these capacities, in client order.
    ///
    /// # Errors
    ///
    /// [`PartitionError::Capacity`] if one is not a positive, finite number.
    pub fn new(capacities: &[f64]) -> Result<Self, PartitionError> {
        let is_bad = |capacity: &f64| !(capacity.is_finite() && *capacity > 0.0);
        match capacities.iter().position(is_bad) {
            Some(client) => Err(PartitionError::Capacity {
                client,
                capacity: capacities[client],
            }),
            None => Ok(Self {
                capacities: capacities.to_vec(),
            }),
        }
    }

    /// The size of each client's partition of so many examples; they sum to it.
    ///
    /// # Errors
    ///
    /// [`PartitionError`] if there is nobody to deal to, or not an example for each.
    pub fn sizes(&self, examples: usize) -> Result<Vec<usize>, PartitionError> {
        check_counts(examples, self.capacities.len())?;
        // Relative to the largest, so that no sum is infinite.
        let largest = self.capacities.iter().copied().fold(0.0, f64::max);
        let shares: Vec<_> = self
            .capacities
            .iter()
            .map(|capacity| capacity / largest)
            .collect();
        let mut sizes = sizes_by_share(examples, &shares);
        fill_empty(&mut sizes);
        Ok(sizes)
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
        if self.capacities.len() != clients {
            return Err(PartitionError::Capacities {
                given: self.capacities.len(),
                clients,
            });
        }
        let mut lists = vec![Vec::new(); clients];
        let indices = shuffled(examples.count(), &mut rng);
        hand_out(&indices, &self.sizes(indices.len())?, &mut lists);
        Ok(ascending(lists))
    }
}

/// Gives one to each that has none, taken from the first of the largest. There must be at least one for each.
fn fill_empty(sizes: &mut [usize]) {
    let mut empty: Vec<_> = (0..sizes.len())
        .filter(|&client| sizes[client] == 0)
        .collect();
    if empty.is_empty() {
        return;
    }
    // By size, the first of equals last, so that it is popped first.
    let by_size = |&client: &usize| (sizes[client], std::cmp::Reverse(client));
    let mut heap: std::collections::BinaryHeap<_> =
        (0..sizes.len()).map(|client| by_size(&client)).collect();
    while let Some(client) = empty.pop()
        && let Some((size, rich)) = heap.pop()
    {
        sizes[client] = 1;
        sizes[rich.0] = size - 1;
        heap.push((size - 1, rich));
    }
}
