//! What every [`Partitioner`] must keep, for this crate's own and for a third party's.
//!
//! Call [`deals_every_example_once`] from a test with as many shapes of data as you like. A broken promise panics with
//! its name.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{Examples, Partitioner};

/// Asserts the whole contract of [`Partitioner`] for one dataset, one number of clients and one seed.
///
/// A refusal (`Err`) is allowed, if the same arguments are refused every time.
///
/// # Panics
///
/// If the contract is broken.
pub fn deals_every_example_once(
    partitioner: &dyn Partitioner,
    examples: Examples<'_>,
    clients: usize,
    seed: u64,
) {
    let first = partitioner.partition(examples, clients, ChaCha8Rng::seed_from_u64(seed));
    let second = partitioner.partition(examples, clients, ChaCha8Rng::seed_from_u64(seed));
    let lists = match (first, second) {
        (Ok(first), Ok(second)) => {
            assert!(first == second, "the same arguments gave two partitions");
            first
        }
        (Err(_), Err(_)) => return,
        _ => panic!("the same arguments were refused once and dealt once"),
    };
    assert_eq!(lists.len(), clients, "one list per client");
    for (client, list) in lists.iter().enumerate() {
        assert!(!list.is_empty(), "client {client} is empty");
        assert!(
            list.is_sorted_by(|a, b| a < b),
            "the list of client {client} is not ascending"
        );
    }
    let mut all = lists.concat();
    all.sort_unstable();
    assert!(
        all.iter().copied().eq(0..examples.count() as u32),
        "not every example was dealt exactly once"
    );
}
