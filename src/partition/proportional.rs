//! Clients whose sizes follow what their workers can do.

use std::{cmp::Reverse, collections::BinaryHeap};

use rand_chacha::ChaCha8Rng;

use super::deal::{ascending, check_counts, hand_out, shuffled, sizes_by_proportion};
use super::{Examples, PartitionError, Partitioner};

/// Every client gets a random sample whose size follows its *capacity*: what its worker can do, in any unit, as long as
/// it is the same for all. A client with four times the capacity gets four times as much.
///
/// Sizes are within one example of the exact proportion, and at least 1; an example that a client has for that reason alone is
/// taken from the largest. Clients still differ in nothing but size. The random order of the
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
        for (client, &capacity) in capacities.iter().enumerate() {
            let is_good = capacity.is_finite() && capacity > 0.0;
            if !is_good {
                return Err(PartitionError::Capacity { client, capacity });
            }
        }
        Ok(Self {
            capacities: capacities.to_vec(),
        })
    }

    /// The size of each client's partition of this many examples; they sum to it.
    ///
    /// # Errors
    ///
    /// [`PartitionError`] if there are no clients, or fewer examples than clients.
    pub fn sizes(&self, examples: usize) -> Result<Vec<usize>, PartitionError> {
        check_counts(examples, self.capacities.len())?;
        // Relative to the largest, so that no sum is infinite.
        let largest = self.capacities.iter().copied().fold(0.0, f64::max);
        let proportions: Vec<_> = self
            .capacities
            .iter()
            .map(|capacity| capacity / largest)
            .collect();
        let mut sizes = sizes_by_proportion(examples, &proportions);
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

/// Gives one example to each client that has none, taken from the first of the largest. There must be at least one for each.
fn fill_empty(sizes: &mut [usize]) {
    let mut empty = Vec::new();
    for (client, size) in sizes.iter().enumerate() {
        if *size == 0 {
            empty.push(client);
        }
    }
    if empty.is_empty() {
        return;
    }
    // A heap, since looking for the largest again and again would take the square of the number of clients.
    let mut largest = BinaryHeap::new();
    for (client, size) in sizes.iter().enumerate() {
        // Of equal sizes the first client is popped first.
        largest.push((*size, Reverse(client)));
    }
    while let Some(client) = empty.pop()
        && let Some((size, Reverse(rich))) = largest.pop()
    {
        sizes[client] = 1;
        sizes[rich] = size - 1;
        largest.push((size - 1, Reverse(rich)));
    }
}
