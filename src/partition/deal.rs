//! What several partitioners use: shuffling, cutting in proportions, and keeping clients from being empty.

use std::{cmp::Reverse, collections::BinaryHeap};

use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Gamma};

use super::{Examples, PartitionError};

/// The checks that every partitioner starts with: at least one client, and an example for each.
pub(super) fn check_counts(examples: usize, clients: usize) -> Result<(), PartitionError> {
    if clients == 0 {
        return Err(PartitionError::NoClients);
    }
    if u32::try_from(examples).is_err() {
        return Err(PartitionError::TooManyExamples { examples });
    }
    if examples < clients {
        return Err(PartitionError::TooFewExamples { examples, clients });
    }
    Ok(())
}

/// Refuses NaN, infinities, zero and negative numbers.
pub(super) fn check_alpha(alpha: f64) -> Result<(), PartitionError> {
    if alpha.is_finite() && alpha > 0.0 {
        Ok(())
    } else {
        Err(PartitionError::Alpha { alpha })
    }
}

/// All indices in a random order.
pub(super) fn shuffled(examples: usize, rng: &mut ChaCha8Rng) -> Vec<u32> {
    let mut indices: Vec<u32> = (0..examples as u32).collect();
    indices.shuffle(rng);
    indices
}

/// How many different labels there are.
pub(super) fn count_labels(labels: &[u16]) -> usize {
    let mut seen = vec![false; usize::from(u16::MAX) + 1];
    for label in labels {
        seen[usize::from(*label)] = true;
    }
    seen.into_iter().filter(|seen| *seen).count()
}

/// The indices of each label that occurs, in the order of labels, each list shuffled.
pub(super) fn shuffled_by_label(
    examples: Examples<'_>,
    partitioner: &'static str,
    rng: &mut ChaCha8Rng,
) -> Result<Vec<Vec<u32>>, PartitionError> {
    let labels = examples
        .labels()
        .ok_or(PartitionError::LabelsUnknown { partitioner })?;
    let classes = labels.iter().max().map_or(0, |&label| label as usize + 1);
    let mut by_label = vec![Vec::new(); classes];
    for (index, &label) in labels.iter().enumerate() {
        by_label[label as usize].push(index as u32);
    }
    // A label without examples has nothing to deal, and would make `shard` count labels that no client can get.
    by_label.retain(|indices| !indices.is_empty());
    for indices in &mut by_label {
        indices.shuffle(rng);
    }
    Ok(by_label)
}

/// A draw from the symmetric Dirichlet distribution over `clients` proportions, as non-negative numbers whose sum is
/// positive and finite but not 1.
///
/// Gamma draws of a small shape can all underflow to zero. The distribution's limit is then one client that has
/// everything, which is what such a draw becomes.
pub(super) fn dirichlet_proportions(clients: usize, alpha: f64, rng: &mut ChaCha8Rng) -> Vec<f64> {
    // Gamma draws that are divided by their sum are a Dirichlet draw. The division is left to `sizes_by_proportion`.
    let Ok(gamma) = Gamma::new(alpha, 1.0) else {
        unreachable!("alpha was checked to be positive and finite");
    };
    let mut proportions: Vec<f64> = (0..clients).map(|_| gamma.sample(rng)).collect();
    let sum: f64 = proportions.iter().sum();
    if sum == 0.0 {
        proportions[rng.random_range(0..clients as u32) as usize] = 1.0;
    } else if !sum.is_finite() {
        // Draws of a very large `alpha` are all about equal, which is also the distribution's limit.
        proportions.fill(1.0);
    }
    proportions
}

/// Cuts `count` in sizes that follow `proportions` (non-negative, their sum positive and finite); the sizes sum to `count`.
///
/// Cuts are at the rounded-down cumulated proportions, so that each size is less than one example from the exact one.
pub(super) fn sizes_by_proportion(count: usize, proportions: &[f64]) -> Vec<usize> {
    let sum: f64 = proportions.iter().sum();
    let mut cumulated = 0.0;
    let mut from = 0;
    let mut sizes: Vec<usize> = proportions
        .iter()
        .map(|proportion| {
            cumulated += proportion;
            // Cut at cumulated proportions: sizes that are rounded one by one need not add up to `count`.
            let to = ((count as f64 * (cumulated / sum)) as usize).clamp(from, count);
            let size = to - from;
            from = to;
            size
        })
        .collect();
    // Rounding can leave the last cut short of the end. It goes to the last client whose proportion is not 0.
    if let Some(last) = proportions.iter().rposition(|&proportion| proportion > 0.0) {
        sizes[last] += count - from;
    }
    sizes
}

/// Cuts `count` in `parts` sizes that differ by one at most, the larger ones first.
pub(super) fn even_sizes(count: usize, parts: usize) -> Vec<usize> {
    (0..parts)
        .map(|part| count / parts + usize::from(part < count % parts))
        .collect()
}

/// Hands out `indices` in order, `sizes[i]` of them to list `i`.
pub(super) fn hand_out(indices: &[u32], sizes: &[usize], lists: &mut [Vec<u32>]) {
    let mut rest = indices;
    for (list, &size) in lists.iter_mut().zip(sizes) {
        let (taken, left) = rest.split_at(size);
        list.extend_from_slice(taken);
        rest = left;
    }
}

/// Moves single random examples from the largest client to any that has fewer than `least`, until none has.
///
/// `least` must be at most examples / clients, which makes it attainable.
pub(super) fn top_up(lists: &mut [Vec<u32>], least: usize, rng: &mut ChaCha8Rng) {
    // The largest on top, and of equal ones the first, so that ties are decided the same way everywhere. Clients that
    // receive are never in it: as long as one has fewer than `least`, another has more, and those that receive have at
    // most `least`. Looking for the largest in all lists would take minutes with a million clients.
    let mut rich = BinaryHeap::new();
    for (client, list) in lists.iter().enumerate() {
        if list.len() > least {
            rich.push((list.len(), Reverse(client)));
        }
    }
    for poor in 0..lists.len() {
        while lists[poor].len() < least {
            let Some((size, Reverse(largest))) = rich.pop() else {
                return;
            };
            let at = rng.random_range(0..size as u32) as usize;
            let moved = lists[largest].swap_remove(at);
            lists[poor].push(moved);
            rich.push((size - 1, Reverse(largest)));
        }
    }
}

/// Each list in ascending order, as promised to callers.
pub(super) fn ascending(mut lists: Vec<Vec<u32>>) -> Vec<Vec<u32>> {
    for list in &mut lists {
        list.sort_unstable();
    }
    lists
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;

    use super::*;

    proptest! {
        #[test]
        fn sizes_follow_proportions(
            count in 0_usize..100_000,
            proportions in prop::collection::vec(0.0_f64..10.0, 1..50),
        ) {
            let sum: f64 = proportions.iter().sum();
            prop_assume!(sum > 0.0);
            let sizes = sizes_by_proportion(count, &proportions);
            prop_assert_eq!(sizes.iter().sum::<usize>(), count);
            for (size, proportion) in sizes.iter().zip(&proportions) {
                let exact = count as f64 * proportion / sum;
                prop_assert!((*size as f64 - exact).abs() < 1.001, "{size} for {exact}");
            }
        }

        #[test]
        fn dirichlet_proportions_can_be_cut_at_any_alpha(
            alpha in prop_oneof![Just(f64::MIN_POSITIVE), Just(1e-8), 0.01_f64..100.0, Just(1e12), Just(f64::MAX)],
            clients in 1_usize..40,
            seed: u64,
        ) {
            let proportions = dirichlet_proportions(clients, alpha, &mut ChaCha8Rng::seed_from_u64(seed));
            let sum: f64 = proportions.iter().sum();
            prop_assert!(sum.is_finite() && sum > 0.0, "{proportions:?}");
            prop_assert_eq!(sizes_by_proportion(1000, &proportions).iter().sum::<usize>(), 1000);
        }

        #[test]
        fn top_up_takes_each_example_from_the_first_of_the_largest(
            sizes in prop::collection::vec(0_usize..40, 1..30),
            seed: u64,
        ) {
            let mut lists: Vec<Vec<u32>> = sizes.iter().map(|size| (0..*size as u32).collect()).collect();
            let least = (sizes.iter().sum::<usize>() / sizes.len()).min(10);
            let mut expected = lists.clone();
            top_up(&mut lists, least, &mut ChaCha8Rng::seed_from_u64(seed));
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            for poor in 0..expected.len() {
                while expected[poor].len() < least {
                    let largest = expected.iter().map(Vec::len).max().unwrap();
                    let first = expected.iter().position(|list| list.len() == largest).unwrap();
                    let at = rng.random_range(0..largest as u32) as usize;
                    let moved = expected[first].swap_remove(at);
                    expected[poor].push(moved);
                }
            }
            prop_assert_eq!(lists, expected);
        }
    }

    #[test]
    fn top_up_reaches_the_least_and_loses_nothing() {
        let mut lists = vec![(0..9).collect(), Vec::new(), vec![9], Vec::new()];
        top_up(&mut lists, 2, &mut ChaCha8Rng::seed_from_u64(1));
        assert!(lists.iter().all(|list| list.len() >= 2), "{lists:?}");
        let mut all = lists.concat();
        all.sort_unstable();
        assert_eq!(all, (0..10).collect::<Vec<u32>>());
    }
}
