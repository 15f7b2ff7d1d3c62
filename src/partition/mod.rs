//! Who gets which examples: labels in, one list of indices per client out.
//!
//! A [`Partitioner`] deals the examples of one dataset to the clients of a job. The result is a pure function of the
//! examples' labels, the number of clients, the partitioner's own parameters and the seed of the generator it is
//! given, so that the coordinator and every worker compute the same lists. Everything here keeps these promises:
//!
//! - every example belongs to exactly one client;
//! - no client is empty, since a dataset with fewer examples than clients is refused;
//! - each list is in ascending order. Shuffling is the trainer's task.
//!
//! | text | spec | what differs between clients | parameter |
//! |---|---|---|---|
//! | `iid` | [`PartitionSpec::Iid`] | nothing | |
//! | `dirichlet:0.5` | [`PartitionSpec::Dirichlet`] | labels and sizes | `alpha`: small is skewed, large is even |
//! | `dirichlet:0.5:balanced` | [`PartitionSpec::BalancedDirichlet`] | labels, and sizes less | `alpha`; the least examples of a client |
//! | `shard:2` | [`PartitionSpec::Shard`] | labels | how many labels a client sees |
//! | `quantity_skew:0.5` | [`PartitionSpec::QuantitySkew`] | sizes | `alpha`: small is skewed, large is even |
//! | `proportional` | [`PartitionSpec::Proportional`] | sizes | each client's capacity: the GPUs of its worker |
//! | `proportional:measured` | the same | sizes | each client's capacity: the examples that its worker trains in a second |
//! | `local` | [`PartitionSpec::Local`] | the workers' own data, which nobody deals | |
//!
//! It must never read a dataset, a clock or the operating system's randomness, and never name a model.

mod balanced;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod deal;
mod dirichlet;
mod error;
mod iid;
mod partitioner;
mod proportional;
mod quantity_skew;
mod shard;
mod spec;
mod spelling;
#[cfg(test)]
mod tests;
mod validation;

use rand_chacha::ChaCha8Rng;

pub use balanced::BalancedDirichlet;
pub use dirichlet::Dirichlet;
pub use error::PartitionError;
pub use iid::Iid;
pub use partitioner::{Examples, Partitioner};
pub use proportional::Proportional;
pub use quantity_skew::QuantitySkew;
pub use shard::Shard;
pub use spec::{Capacity, PartitionSpec};
#[cfg(feature = "http")]
pub(crate) use spelling::PartitionSpelling;
pub use validation::ValidationSplit;

/// Checks that `examples` can be dealt to `clients` clients, in memory that does not grow with either.
///
/// # Errors
///
/// What [`partition`] would refuse, but for the capacities.
pub fn check(
    spec: &PartitionSpec,
    examples: Examples<'_>,
    clients: usize,
) -> Result<(), PartitionError> {
    spec.validate()?;
    deal::check_counts(examples.count(), clients)?;
    match (spec, examples.labels()) {
        // The one partitioner that refuses by the labels themselves. It is asked at submission, before workers wait
        // for the job.
        (PartitionSpec::Shard { labels_per_client }, Some(labels)) => {
            let labels = deal::count_labels(labels);
            Shard::new(*labels_per_client)?.check_labels(labels, clients)
        }
        (PartitionSpec::BalancedDirichlet { alpha, min }, _) => {
            BalancedDirichlet::new(*alpha, *min)?.check_least(examples.count(), clients)
        }
        _ => Ok(()),
    }
}

/// Deals `examples` to `clients` clients as `spec` says.
///
/// `capacities` has one positive number per client, what its worker can do; only `proportional` looks at it.
///
/// ```
/// use fedavg::partition::{Examples, PartitionSpec, partition};
/// use rand::SeedableRng;
/// use rand_chacha::ChaCha8Rng;
///
/// let labels = [0, 0, 1, 1, 2, 2];
/// let spec: PartitionSpec = "shard:1".parse()?;
/// let lists = partition(&spec, Examples::labelled(&labels), 3, None, ChaCha8Rng::seed_from_u64(1))?;
/// assert!(lists.iter().all(|list| list.len() == 2));
/// # Ok::<(), fedavg::partition::PartitionError>(())
/// ```
pub fn partition(
    spec: &PartitionSpec,
    examples: Examples<'_>,
    clients: usize,
    capacities: Option<&[f64]>,
    rng: ChaCha8Rng,
) -> Result<Vec<Vec<u32>>, PartitionError> {
    spec.partitioner(capacities)?
        .partition(examples, clients, rng)
}
