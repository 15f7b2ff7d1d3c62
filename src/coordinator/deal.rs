//! Dealing a job's data over its clients, and when it is worth dealing it again.

use std::sync::{Arc, atomic::AtomicBool};

use super::{capacity::current_capacities, state::State, training_pool::TrainingPool};
use crate::{
    ids::{JobId, RoundId},
    job::JobSpec,
    partition::{Proportional, partition},
    rng::{Purpose, keyed},
    worker::Partition,
};

/// The data is dealt again if a round takes longer now than afterwards by this factor. Measured speeds move by some
/// percents from round to round, and each new partition has to be sent to its worker.
const WORTHWHILE: f64 = 1.25;

/// The data is also dealt again if a client is due more examples than it has by this factor, although rounds would not
/// be much shorter: a worker that was slow once, when it was cold, must not stay without work for good.
const STARVED: u64 = 2;

/// A running job whose data may be dealt again.
pub(super) struct Deal {
    spec: JobSpec,
    /// As measured, of each client.
    capacities: Vec<f64>,
    /// The examples of each client now.
    partitions: Vec<Partition>,
    /// Whether the job has ended.
    over: Arc<AtomicBool>,
}

impl Deal {
    /// What is known of the job's workers; none if one that has a client was not measured yet, or a client has none.
    /// Speeds count within this spread.
    pub fn of(state: &State, id: JobId, spread: f64) -> Option<Self> {
        let job = state.jobs.get(&id)?;
        Some(Self {
            capacities: current_capacities(state, job, spread)?,
            spec: job.spec.clone(),
            partitions: job.partitions.clone(),
            over: job.over.clone(),
        })
    }

    /// New partitions, if the rounds are much shorter with them, or a client has much less than it is due.
    pub fn again(&self) -> Result<Option<Vec<Partition>>, String> {
        let has = sizes(&self.partitions);
        let examples = has.iter().sum::<u64>() as usize;
        // Sizes alone say whether it is worth it. Lists of indices are made only then.
        let due = self.sizes_due(examples)?;
        let now = slowest(&has, &self.capacities);
        let then = slowest(&due, &self.capacities);
        if now <= WORTHWHILE * then && !starves_a_client(&has, &due) {
            return Ok(None);
        }
        // Only `proportional:measured` is dealt again, and it looks at no labels.
        let pool = TrainingPool::of(&self.spec, &self.partitions);
        deal(&self.spec, &pool, &self.capacities, &self.over).map(Some)
    }

    /// The number of examples that each client has by its capacity.
    fn sizes_due(&self, examples: usize) -> Result<Vec<u64>, String> {
        let dealer = Proportional::new(&self.capacities).map_err(|error| error.to_string())?;
        let sizes = dealer.sizes(examples).map_err(|error| error.to_string())?;
        Ok(sizes.into_iter().map(|size| size as u64).collect())
    }
}

fn starves_a_client(has: &[u64], due: &[u64]) -> bool {
    let mut pairs = has.iter().zip(due);
    pairs.any(|(has, due)| *due > STARVED * has)
}

/// Deals the examples to as many clients as there are capacities, unless that is `cancelled`.
pub(super) fn deal(
    spec: &JobSpec,
    pool: &TrainingPool<'_>,
    capacities: &[f64],
    cancelled: &AtomicBool,
) -> Result<Vec<Partition>, String> {
    // Round 0, whenever this is called: the same capacities always deal the same examples.
    let generator = keyed(spec.seed, Purpose::Partition, RoundId(0), None);
    let clients = capacities.len();
    let dealt = partition(
        &spec.partition,
        pool.examples().until(cancelled),
        clients,
        Some(capacities),
        generator,
    );
    let mut partitions = Vec::with_capacity(clients);
    for indices in dealt.map_err(|error| error.to_string())? {
        partitions.push(pool.partition(indices));
    }
    Ok(partitions)
}

/// The number of examples in each partition; 0 if it is not the coordinator's to know.
pub(super) fn sizes(partitions: &[Partition]) -> Vec<u64> {
    let mut sizes = Vec::with_capacity(partitions.len());
    for partition in partitions {
        sizes.push(match partition {
            Partition::Indices(indices) => indices.len() as u64,
            Partition::Everything => 0,
        });
    }
    sizes
}

/// How long the slowest client takes for its examples, in seconds of one local epoch.
fn slowest(sizes: &[u64], capacities: &[f64]) -> f64 {
    let mut slowest = 0.0_f64;
    for (size, capacity) in sizes.iter().zip(capacities) {
        slowest = slowest.max(*size as f64 / capacity);
    }
    slowest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::partition::{Capacity, PartitionSpec};

    /// Partitions of these sizes.
    fn of_sizes(sizes: &[u64]) -> Vec<Partition> {
        let mut partitions = Vec::new();
        let mut next = 0;
        for size in sizes {
            let end = next + *size as u32;
            partitions.push(Partition::Indices((next..end).collect()));
            next = end;
        }
        partitions
    }

    /// The sizes after a job with these capacities was asked whether to deal again; none if it stays as it is.
    fn dealt_again(capacities: &[f64], sizes: &[u64]) -> Option<Vec<u64>> {
        let spec = JobSpec {
            partition: PartitionSpec::Proportional {
                by: Capacity::Measured,
            },
            ..JobSpec::default()
        };
        let deal = Deal {
            spec,
            capacities: capacities.to_vec(),
            partitions: of_sizes(sizes),
            over: Arc::default(),
        };
        let partitions = deal.again().unwrap()?;
        Some(super::sizes(&partitions))
    }

    #[test]
    fn data_is_dealt_again_if_rounds_are_a_quarter_longer_than_they_need_be() {
        assert_eq!(dealt_again(&[400.0, 100.0], &[50, 50]), Some(vec![80, 20]));
        // 55 instead of 50 in the time of 50: a tenth.
        assert_eq!(dealt_again(&[100.0, 100.0], &[55, 45]), None);
        assert_eq!(dealt_again(&[110.0, 100.0], &[50, 50]), None);
    }

    #[test]
    fn a_worker_that_was_slow_when_it_was_cold_does_not_stay_without_work() {
        let mut sizes = vec![111; 9];
        sizes.push(1);
        assert_eq!(dealt_again(&[1.0; 10], &sizes), Some(vec![100; 10]));
        sizes = vec![105; 9];
        sizes.push(55);
        assert_eq!(dealt_again(&[1.0; 10], &sizes), None);
    }

    proptest! {
        #[test]
        fn what_was_dealt_again_stays_until_something_changes(
            capacities in prop::collection::vec(0.001_f64..1000.0, 1..40),
            examples in 1_u64..50,
        ) {
            let before = vec![examples; capacities.len()];
            if let Some(after) = dealt_again(&capacities, &before) {
                prop_assert_eq!(after.iter().sum::<u64>(), before.iter().sum::<u64>());
                prop_assert_eq!(dealt_again(&capacities, &after), None);
            }
        }
    }
}
