//! How much each client of a `proportional` partition can do, in any unit.
//!
//! A client's capacity under `proportional:measured` is the speed of one slot of its worker, divided by the number of
//! the job's clients that this worker has for each of its slots. Dealt by these, all workers are ready at the same
//! moment, if they go on as they were measured.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{job::Job, speed::SpeedBounds, state::State};
use crate::{
    ids::{ClientId, JobId, WorkerId},
    job::JobSpec,
    protocol::Registration,
    round::first_holders,
    strategy::ClientInfo,
};

/// A live worker that can train a job.
pub(super) struct Host {
    pub worker: WorkerId,
    pub registration: Arc<Registration>,
    /// The examples that one of its slots trains in a second, on the job's model and dataset, if it was measured: as far as it
    /// counts.
    pub speed: Option<f64>,
}

impl Host {
    /// The live workers that can train this job, in order of registration. Speeds count within this spread.
    pub fn eligible(state: &State, job: &Job, spread: f64) -> Vec<Self> {
        let mut hosts = Vec::new();
        for (worker, registration) in state.eligible(job) {
            hosts.push(Self {
                worker,
                registration: registration.clone(),
                speed: speed(state, job, worker),
            });
        }
        let bounds = SpeedBounds::new(hosts.iter().filter_map(|host| host.speed), spread);
        for host in &mut hosts {
            host.speed = host.speed.map(|speed| bounds.hold(speed));
        }
        hosts
    }
}

/// The capacity of each of `clients` clients of a job that is about to start: as measured, if that is asked for and
/// each worker that gets a client has been measured, else the number of the worker's GPUs, none counted as one.
pub(super) fn first_capacities(spec: &JobSpec, hosts: &[Host], clients: usize) -> Vec<f64> {
    let holders = first_hosts(hosts, clients);
    let mut capacities = None;
    if spec.partition.is_measured() {
        capacities = measured(&holders);
    }
    let mut capacities = capacities.unwrap_or_else(|| gpus(&holders));
    // Without a worker all clients are alike.
    capacities.resize(clients, 1.0);
    capacities
}

/// The worker of each of `clients` clients of a job that is about to start; none if there is no worker.
pub(super) fn first_hosts(hosts: &[Host], clients: usize) -> Vec<&Host> {
    let mut slots = Vec::with_capacity(hosts.len());
    let mut by_worker = BTreeMap::new();
    for host in hosts {
        slots.push((host.worker, host.registration.slots));
        by_worker.insert(host.worker, host);
    }
    let mut holders = Vec::with_capacity(clients);
    // The machine places the leases after the data is dealt. This runs the same code, so both name the same workers
    // unless some come or go meanwhile.
    for worker in first_holders(&slots, clients) {
        holders.extend(by_worker.get(&worker));
    }
    holders
}

/// As measured, of the clients whose workers `holders` names in order; none if one of these was not measured yet.
fn measured(holders: &[&Host]) -> Option<Vec<f64>> {
    let mut clients_of: BTreeMap<WorkerId, usize> = BTreeMap::new();
    for host in holders {
        *clients_of.entry(host.worker).or_default() += 1;
    }
    let mut capacities = Vec::with_capacity(holders.len());
    for host in holders {
        let clients = clients_of[&host.worker];
        // One unknown speed makes all of them useless: a measured speed and a guess have no common unit.
        capacities.push(of_one_client(host.speed?, clients, host.registration.slots));
    }
    Some(capacities)
}

/// The number of GPUs of each client's worker, at least one.
fn gpus(holders: &[&Host]) -> Vec<f64> {
    let mut counts = Vec::with_capacity(holders.len());
    for host in holders {
        counts.push(host.registration.hardware.gpus.len().max(1) as f64);
    }
    counts
}

/// As measured, of each client of a job that runs; none if a client has no worker, or one that was not measured yet. Speeds count
/// within this spread.
pub(super) fn current_capacities(state: &State, job: &Job, spread: f64) -> Option<Vec<f64>> {
    let clients = (0..job.partitions.len()).map(|client| ClientId(client as u32));
    let bounds = bounds(state, job, clients, spread);
    let machine = job.machine.as_ref()?;
    let mut of_worker: BTreeMap<WorkerId, f64> = BTreeMap::new();
    let mut capacities = Vec::with_capacity(job.partitions.len());
    for client in 0..job.partitions.len() {
        let holder = machine.lease(ClientId(client as u32))?;
        // Called under the lock, and a job can have a million clients on a few workers: each worker is looked at once.
        if let Some(capacity) = of_worker.get(&holder) {
            capacities.push(*capacity);
            continue;
        }
        let slots = state.roster.find(holder)?.info.registration.slots;
        let speed = bounds.hold(speed(state, job, holder)?);
        let capacity = of_one_client(speed, machine.clients_of(holder), slots);
        of_worker.insert(holder, capacity);
        capacities.push(capacity);
    }
    Some(capacities)
}

/// Notes the measured speed of the worker that acts for each of these clients of a job, as far as it counts within this spread.
pub(super) fn note_capacities(state: &State, job: JobId, clients: &mut [ClientInfo], spread: f64) {
    let Some(job) = state.jobs.get(&job) else {
        return;
    };
    let Some(machine) = &job.machine else { return };
    let bounds = bounds(state, job, clients.iter().map(|client| client.id), spread);
    let mut of_worker: BTreeMap<WorkerId, Option<f64>> = BTreeMap::new();
    for client in clients {
        let Some(holder) = machine.lease(client.id) else {
            continue;
        };
        // Called under the lock: each worker is looked at once, however many clients it has.
        let speed = of_worker
            .entry(holder)
            .or_insert_with(|| speed(state, job, holder).map(|speed| bounds.hold(speed)));
        client.capacity = *speed;
    }
}

/// Around the median speed of the workers that act for these clients.
fn bounds(
    state: &State,
    job: &Job,
    clients: impl Iterator<Item = ClientId>,
    spread: f64,
) -> SpeedBounds {
    let mut holders = BTreeSet::new();
    if let Some(machine) = &job.machine {
        for client in clients {
            holders.extend(machine.lease(client));
        }
    }
    let speeds = holders
        .into_iter()
        .filter_map(|worker| speed(state, job, worker));
    SpeedBounds::new(speeds, spread)
}

fn speed(state: &State, job: &Job, worker: WorkerId) -> Option<f64> {
    let speeds = &state.roster.find(worker)?.info.speeds;
    speeds.of(&job.spec.model, &job.spec.dataset)
}

/// What one client of a worker has of its speed. A client trains on one slot, so more slots than clients are no use.
fn of_one_client(speed: f64, clients: usize, slots: u32) -> f64 {
    let clients_per_slot = clients as f64 / f64::from(slots.max(1));
    speed / clients_per_slot.max(1.0)
}
