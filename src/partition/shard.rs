//! Clients that see only a few labels each.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::deal::{ascending, check_counts, even_sizes, hand_out, shuffled_by_label, top_up};
use super::{Examples, PartitionError, Partitioner};

/// Each client gets `labels_per_client` shards, each a random piece of another label's examples.
///
/// This is the pathological non-IID partition of McMahan et al., *Communication-Efficient Learning of Deep Networks
/// from Decentralized Data* (2017, arXiv:1602.05629), which sorts the examples by label, cuts shards of equal size and
/// deals them at random. Here a cut never runs across two labels and no client gets two shards of one label, so that
/// the number of labels per client is exact. A label is cut in as many equal shards as its frequency asks
/// for: with even labels all shards are the same size, as in the paper.
///
/// Refused: more labels per client than the data has, and so few that a label would have no client. A client holds
/// fewer labels than asked for only if a label has fewer examples than shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    labels_per_client: usize,
}

impl Shard {
    /// A partitioner that gives each client this many labels, at least one.
    pub fn new(labels_per_client: u32) -> Result<Self, PartitionError> {
        if labels_per_client == 0 {
            return Err(PartitionError::NoLabelsPerClient);
        }
        Ok(Self {
            labels_per_client: labels_per_client as usize,
        })
    }

    pub(super) fn check_labels(&self, labels: usize, clients: usize) -> Result<(), PartitionError> {
        let labels_per_client = self.labels_per_client;
        if labels_per_client > labels {
            return Err(PartitionError::TooManyLabelsPerClient {
                labels_per_client,
                labels,
            });
        }
        if clients.saturating_mul(labels_per_client) < labels {
            return Err(PartitionError::LabelsLeftOver {
                clients,
                labels_per_client,
                labels,
                least: labels.div_ceil(clients),
            });
        }
        Ok(())
    }

    /// Which clients own a shard of each label: `labels_per_client` different labels for each client.
    ///
    /// Clients choose in turn, each the labels with the most shards left, ties in random order. Such a choice never runs
    /// out of labels before the last client (Gale and Ryser), as no label has more shards than there are clients.
    fn owners_of_labels(
        &self,
        shards: &[usize],
        examples: Examples<'_>,
        clients: usize,
        rng: &mut ChaCha8Rng,
    ) -> Result<Vec<Vec<usize>>, PartitionError> {
        let mut left = shards.to_vec();
        let mut owners = vec![Vec::new(); shards.len()];
        let mut labels = Vec::with_capacity(shards.len());
        for client in 0..clients {
            examples.check_cancelled()?;
            labels.clear();
            for (label, &left) in left.iter().enumerate() {
                labels.push((Reverse(left), rng.next_u64(), label));
            }
            // Which ones are chosen matters, their order does not: no sort, since there can be a million clients.
            labels.select_nth_unstable(self.labels_per_client - 1);
            for &(Reverse(remaining), _, label) in &labels[..self.labels_per_client] {
                if remaining > 0 {
                    left[label] -= 1;
                    owners[label].push(client);
                }
            }
        }
        Ok(owners)
    }
}

impl Partitioner for Shard {
    fn partition(
        &self,
        examples: Examples<'_>,
        clients: usize,
        mut rng: ChaCha8Rng,
    ) -> Result<Vec<Vec<u32>>, PartitionError> {
        check_counts(examples.count(), clients)?;
        let by_label = shuffled_by_label(examples, "shard", &mut rng)?;
        self.check_labels(by_label.len(), clients)?;

        let counts: Vec<usize> = by_label.iter().map(Vec::len).collect();
        let shards = shards_per_label(&counts, clients, clients * self.labels_per_client);
        let owners = self.owners_of_labels(&shards, examples, clients, &mut rng)?;

        let mut lists = vec![Vec::new(); clients];
        for (indices, owners) in by_label.iter().zip(&owners) {
            let mut pieces = vec![Vec::new(); owners.len()];
            hand_out(
                indices,
                &even_sizes(indices.len(), owners.len()),
                &mut pieces,
            );
            for (&owner, piece) in owners.iter().zip(pieces) {
                lists[owner].extend(piece);
            }
        }
        top_up(&mut lists, 1, &mut rng);
        Ok(ascending(lists))
    }
}

/// A label, ordered by the size of its shards; of equal sizes, the first label is the larger one.
#[derive(PartialEq, Eq)]
struct Cut {
    label: usize,
    count: usize,
    shards: usize,
}

impl Ord for Cut {
    fn cmp(&self, other: &Self) -> Ordering {
        // count / shards against other.count / other.shards, without division.
        let here = self.count as u128 * other.shards as u128;
        let there = other.count as u128 * self.shards as u128;
        here.cmp(&there).then(other.label.cmp(&self.label))
    }
}

impl PartialOrd for Cut {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// How many shards each label is cut in: `total` in all, at least one for each label and at most one per client.
///
/// One more shard goes, again and again, to the label whose shards are the largest (D'Hondt's method); the first such
/// label if several are.
fn shards_per_label(counts: &[usize], clients: usize, total: usize) -> Vec<usize> {
    let mut shards = vec![1; counts.len()];
    let mut largest = BinaryHeap::new();
    for (label, &count) in counts.iter().enumerate() {
        largest.push(Cut {
            label,
            count,
            shards: 1,
        });
    }
    for _ in counts.len()..total {
        // A label with a shard for each client is not put back.
        while largest.peek().is_some_and(|cut| cut.shards == clients) {
            largest.pop();
        }
        let Some(mut cut) = largest.pop() else { break };
        cut.shards += 1;
        shards[cut.label] = cut.shards;
        largest.push(cut);
    }
    shards
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_further_shard_is_for_the_first_label_with_the_largest_ones(
            counts in prop::collection::vec(1_usize..1000, 1..20),
            clients in 1_usize..30,
            total in 0_usize..300,
        ) {
            let mut expected = vec![1; counts.len()];
            for _ in counts.len()..total {
                let mut best = None;
                for label in 0..counts.len() {
                    let larger = |other: usize| counts[label] * expected[other] > counts[other] * expected[label];
                    if expected[label] < clients && best.is_none_or(larger) {
                        best = Some(label);
                    }
                }
                if let Some(label) = best {
                    expected[label] += 1;
                }
            }
            prop_assert_eq!(shards_per_label(&counts, clients, total), expected);
        }
    }

    #[test]
    fn even_labels_get_even_shards() {
        assert_eq!(shards_per_label(&[500; 10], 100, 200), vec![20; 10]);
    }

    #[test]
    fn frequent_labels_get_more_shards_but_one_per_client_at_most() {
        assert_eq!(shards_per_label(&[900, 50, 50], 4, 8), vec![4, 2, 2]);
        assert_eq!(shards_per_label(&[400, 200, 200], 8, 8), vec![4, 2, 2]);
        assert_eq!(shards_per_label(&[1000, 1], 2, 2), vec![1, 1]);
    }
}
