//! By which capacities a job's data is dealt, and when it is worth dealing it again.
//!
//! A client's capacity under `proportional:measured` is the speed of one slot of its worker, divided by the number of
//! the job's clients that this worker has for each of its slots: so all workers are ready at the same moment, if they
//! go on as they were measured.

use std::{collections::BTreeMap, sync::Arc};

use super::{job::Job, state::State};
use crate::{
    ids::{ClientId, JobId, RoundId, WorkerId},
    job::JobSpec,
    partition::{Examples, Proportional, partition},
    protocol::Registration,
    rng::{Purpose, keyed},
    round::first_holders,
    worker::Partition,
};

/// How many times as long as after dealing again a round must be expected to take, for the data to be dealt again.
/// Speeds as measured move by some percents from round to round, and each new partition is to be sent to its worker.
const WORTHWHILE: f64 = 1.25;

/// How many times what it has a client must be due, for the data to be dealt again though rounds are not much shorter
/// for it: a worker that was slow once, when it was cold, must not stay without work for good.
const STARVED: u64 = 2;

/// A live worker that can train a job.
pub(super) struct Host {
    pub worker: WorkerId,
    pub registration: Arc<Registration>,
    /// The examples that one of its slots trains in a second, on the job's model and dataset, if it was measured.
    pub speed: Option<f64>,
}

impl Host {
    /// The live workers that can train this job, in order of registration.
    pub fn eligible(state: &State, job: &Job) -> Vec<Self> {
        state
            .eligible(job)
            .map(|(worker, registration)| Self {
                worker,
                registration: registration.clone(),
                speed: speed(state, job, worker),
            })
            .collect()
    }
}

/// The capacity of each of `clients` clients of a job that is about to start: as measured, if that is asked for and
/// each worker that gets a client has been measured, else the number of the worker's GPUs, none counted as one.
pub(super) fn first_capacities(spec: &JobSpec, hosts: &[Host], clients: usize) -> Vec<f64> {
    let slots: Vec<_> = hosts
        .iter()
        .map(|host| (host.worker, host.registration.slots))
        .collect();
    let holders = first_holders(&slots, clients);
    let by_worker: BTreeMap<_, _> = hosts.iter().map(|host| (host.worker, host)).collect();
    let mut counts: BTreeMap<WorkerId, usize> = BTreeMap::new();
    holders
        .iter()
        .for_each(|holder| *counts.entry(*holder).or_default() += 1);
    let measured = |holder: &WorkerId| {
        let host = by_worker.get(holder)?;
        Some(share(host.speed?, counts[holder], host.registration.slots))
    };
    let gpus = |holder: &WorkerId| {
        let host = by_worker.get(holder);
        host.map_or(1, |host| host.registration.hardware.gpus.len().max(1)) as f64
    };
    let is_measured = spec.partition.is_measured();
    let by_speed = is_measured.then(|| holders.iter().map(measured).collect::<Option<Vec<_>>>());
    let mut capacities = by_speed
        .flatten()
        .unwrap_or_else(|| holders.iter().map(gpus).collect());
    // Without a worker all are alike.
    capacities.resize(clients, 1.0);
    capacities
}

/// A running job whose data may be dealt again.
pub(super) struct Deal {
    spec: JobSpec,
    /// As measured, of each client.
    capacities: Vec<f64>,
    /// The number of examples of each client now.
    sizes: Vec<u64>,
}

impl Deal {
    /// What is known of the job's workers; none if one that has a client was not measured yet, or a client has none.
    pub fn of(state: &State, id: JobId) -> Option<Self> {
        let job = state.jobs.get(&id)?;
        let machine = job.machine.as_ref()?;
        let mut shares: BTreeMap<WorkerId, f64> = BTreeMap::new();
        let mut capacities = Vec::with_capacity(job.partitions.len());
        for client in 0..job.partitions.len() {
            let holder = machine.lease(ClientId(client as u32))?;
            let capacity = match shares.get(&holder) {
                Some(capacity) => *capacity,
                None => {
                    let slots = state.roster.find(holder)?.info.registration.slots;
                    let speed = speed(state, job, holder)?;
                    share(speed, machine.clients_of(holder), slots)
                }
            };
            shares.insert(holder, capacity);
            capacities.push(capacity);
        }
        Some(Self {
            spec: job.spec.clone(),
            capacities,
            sizes: sizes(&job.partitions),
        })
    }

    /// New partitions, if the rounds are much shorter with them, or a client has much less than it is due.
    pub fn anew(&self) -> Result<Option<Vec<Partition>>, String> {
        let examples = self.sizes.iter().sum::<u64>() as usize;
        let proportional = Proportional::new(&self.capacities);
        let sizes = proportional.and_then(|dealer| dealer.sizes(examples));
        let sizes = sizes.map_err(|error| error.to_string())?;
        let due: Vec<_> = sizes.into_iter().map(|size| size as u64).collect();
        let longest = |sizes| longest(sizes, &self.capacities);
        let is_long = longest(&self.sizes) > WORTHWHILE * longest(&due);
        let is_starved = |(has, due): (&u64, &u64)| *due > STARVED * has;
        if !is_long && !self.sizes.iter().zip(&due).any(is_starved) {
            return Ok(None);
        }
        deal(&self.spec, Examples::unlabelled(examples), &self.capacities).map(Some)
    }
}

/// Deals the examples to as many clients as there are capacities.
pub(super) fn deal(
    spec: &JobSpec,
    examples: Examples<'_>,
    capacities: &[f64],
) -> Result<Vec<Partition>, String> {
    let generator = keyed(spec.seed, Purpose::Partition, RoundId(0), None);
    let dealt = partition(
        &spec.partition,
        examples,
        capacities.len(),
        Some(capacities),
        generator,
    )
    .map_err(|error| error.to_string())?;
    Ok(dealt
        .into_iter()
        .map(|indices| Partition::Indices(Arc::from(indices)))
        .collect())
}

/// The number of examples in each partition; 0 if it is not the coordinator's to know.
pub(super) fn sizes(partitions: &[Partition]) -> Vec<u64> {
    let size = |partition: &Partition| match partition {
        Partition::Indices(indices) => indices.len() as u64,
        Partition::Everything => 0,
    };
    partitions.iter().map(size).collect()
}

fn speed(state: &State, job: &Job, worker: WorkerId) -> Option<f64> {
    let speeds = &state.roster.find(worker)?.info.speeds;
    speeds.of(&job.spec.model, &job.spec.dataset)
}

/// What one client of a worker has of its speed. A client trains on one slot, so more slots than clients are no use.
fn share(speed: f64, clients: usize, slots: u32) -> f64 {
    speed / (clients as f64 / f64::from(slots.max(1))).max(1.0)
}

/// How long the slowest takes for its examples, in local epochs' seconds.
fn longest(sizes: &[u64], capacities: &[f64]) -> f64 {
    sizes
        .iter()
        .zip(capacities)
        .map(|(size, capacity)| *size as f64 / capacity)
        .fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::partition::{Capacity, PartitionSpec};

    /// The sizes after a job with these capacities was asked whether to deal again; none if it stays as it is.
    fn anew(capacities: &[f64], sizes: &[u64]) -> Option<Vec<u64>> {
        let spec = JobSpec {
            partition: PartitionSpec::Proportional {
                by: Capacity::Measured,
            },
            ..JobSpec::default()
        };
        let deal = Deal {
            spec,
            capacities: capacities.to_vec(),
            sizes: sizes.to_vec(),
        };
        let partitions = deal.anew().unwrap()?;
        Some(super::sizes(&partitions))
    }

    #[test]
    fn data_is_dealt_anew_where_rounds_are_a_quarter_longer_than_they_need_be() {
        assert_eq!(anew(&[400.0, 100.0], &[50, 50]), Some(vec![80, 20]));
        // 55 instead of 50 in the time of 50: a tenth.
        assert_eq!(anew(&[100.0, 100.0], &[55, 45]), None);
        assert_eq!(anew(&[110.0, 100.0], &[50, 50]), None);
    }

    #[test]
    fn a_worker_that_was_slow_when_it_was_cold_does_not_stay_without_work() {
        let mut sizes = vec![111; 9];
        sizes.push(1);
        assert_eq!(anew(&[1.0; 10], &sizes), Some(vec![100; 10]));
        sizes = vec![105; 9];
        sizes.push(55);
        assert_eq!(anew(&[1.0; 10], &sizes), None);
    }

    proptest! {
        #[test]
        fn what_was_dealt_anew_stays_until_something_changes(
            capacities in prop::collection::vec(0.001_f64..1000.0, 1..40),
            examples in 1_u64..50,
        ) {
            let before = vec![examples; capacities.len()];
            if let Some(after) = anew(&capacities, &before) {
                prop_assert_eq!(after.iter().sum::<u64>(), before.iter().sum::<u64>());
                prop_assert_eq!(anew(&capacities, &after), None);
            }
        }
    }
}
