//! Clients that see only a few labels each.

use std::cmp::Reverse;

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
        let owners = owners_of_labels(&shards, clients, self.labels_per_client, &mut rng);

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

/// How many shards each label is cut in: `total` in all, at least one for each label and at most one per client.
///
/// One more shard goes, again and again, to the label whose shards are the largest (D'Hondt's method); the first such
/// label if several are.
fn shards_per_label(counts: &[usize], clients: usize, total: usize) -> Vec<usize> {
    let mut shards = vec![1; counts.len()];
    for _ in counts.len()..total {
        let mut largest = None;
        for (label, &count) in counts.iter().enumerate() {
            // One more would have to go to a client that has this label already.
            if shards[label] == clients {
                continue;
            }
            // count / shards > best_count / best_shards, without division.
            let larger = largest.is_none_or(|best: usize| {
                count as u128 * shards[best] as u128 > counts[best] as u128 * shards[label] as u128
            });
            if larger {
                largest = Some(label);
            }
        }
        let Some(label) = largest else { break };
        shards[label] += 1;
    }
    shards
}

/// Which clients own a shard of each label: `labels_per_client` different labels for each client.
///
/// Clients choose in turn, each the labels with the most shards left, ties in random order. Such a choice never runs
/// out of labels before the last client (Gale and Ryser), as no label has more shards than there are clients.
fn owners_of_labels(
    shards: &[usize],
    clients: usize,
    labels_per_client: usize,
    rng: &mut ChaCha8Rng,
) -> Vec<Vec<usize>> {
    let mut left = shards.to_vec();
    let mut owners = vec![Vec::new(); shards.len()];
    for client in 0..clients {
        let mut labels: Vec<(Reverse<usize>, u64, usize)> = left
            .iter()
            .enumerate()
            .map(|(label, &left)| (Reverse(left), rng.next_u64(), label))
            .collect();
        labels.sort_unstable();
        for &(Reverse(remaining), _, label) in labels.iter().take(labels_per_client) {
            if remaining > 0 {
                left[label] -= 1;
                owners[label].push(client);
            }
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

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
