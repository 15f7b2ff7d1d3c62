//! Fixing a job's clients and dealing the data over them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::AtomicBool,
};

use super::{
    capacity::{Host, first_capacities, first_hosts},
    config::CoordinatorConfig,
    deal::{deal, sizes},
    training_pool::TrainingPool,
};
use crate::{
    ids::WorkerId,
    job::JobSpec,
    partition,
    protocol::{DatasetInfo, Registration},
    round::ClientSpec,
    strategy::FederatedStrategy,
    worker::{Partition, TrainerFactory},
};

/// A job's clients, and what each of them trains on.
pub(super) struct Prepared {
    pub clients: Vec<ClientSpec>,
    pub partitions: Vec<Partition>,
    pub fingerprint: String,
    /// The names of the workers whose own data it is; empty if it was dealt.
    pub owners: BTreeSet<String>,
    /// The names of the workers that clients of dealt data are pinned to; empty if they may move.
    pub pinned: BTreeMap<WorkerId, String>,
}

/// Deals the data over the clients, unless that is `cancelled`; `workers` are those that can train the job, in order of
/// registration.
pub(super) fn prepare(
    spec: &JobSpec,
    trainers: &dyn TrainerFactory,
    workers: &[Host],
    config: &CoordinatorConfig,
    cancelled: &AtomicBool,
) -> Result<Prepared, String> {
    if spec.partition.is_local() {
        return Ok(local(spec, workers, config));
    }
    // The coordinator's own copy is the one that counts; without one, that of the worker that came first.
    let here = trainers.dataset(&spec.dataset).ok();
    let mut dataset = here.clone();
    for host in workers {
        if dataset.is_none() {
            dataset = find(&host.registration, spec).cloned();
        }
    }
    let dataset = dataset.ok_or("no worker and not the coordinator has the dataset")?;
    // Workers never send labels: only the coordinator's own copy has them.
    let labels = match here {
        Some(_) if spec.partition.needs_labels() => Some(
            trainers
                .labels(&spec.dataset)
                .map_err(|error| error.to_string())?,
        ),
        _ => None,
    };
    let pool = TrainingPool::new(spec, dataset.train_examples as usize, labels.as_deref());
    let pool = pool.map_err(|error| error.to_string())?;
    let count = spec
        .clients
        .map_or(workers.len(), |clients| clients as usize);
    // Before anything of this size is made.
    partition::check(&spec.partition, pool.examples(), count).map_err(|error| error.to_string())?;
    let capacities = first_capacities(spec, workers, count);
    let partitions = deal(spec, &pool, &capacities, cancelled)?;
    let mut clients = Vec::with_capacity(count);
    for examples in sizes(&partitions) {
        clients.push(ClientSpec {
            examples,
            home: None,
        });
    }
    let mut pinned = BTreeMap::new();
    if spec.pins_clients() {
        let hosts = first_hosts(workers, count);
        // A client without a worker of its own could move from one to another.
        if hosts.len() < count {
            return Err("the workers were lost before the clients were dealt to them".to_string());
        }
        for (client, host) in clients.iter_mut().zip(hosts) {
            client.home = Some(host.worker);
            pinned.insert(host.worker, host.registration.name.clone());
        }
    }
    Ok(Prepared {
        clients,
        partitions,
        fingerprint: dataset.fingerprint,
        owners: BTreeSet::new(),
        pinned,
    })
}

/// Checks that the strategy can do with this many clients, if the job did not say how many it has: at submission nothing was known.
/// Now it is, and all attempts would fail alike.
///
/// # Errors
///
/// What is wrong, and how many clients would do.
pub(super) fn check_clients(
    spec: &JobSpec,
    strategy: &dyn FederatedStrategy,
    clients: u32,
) -> Result<(), String> {
    /// How many more clients are tried.
    const MORE: u32 = 1000;
    if spec.clients.is_some() && !spec.partition.is_local() {
        return Ok(());
    }
    let Err(reason) = strategy.check_limits(&spec.limits, Some(clients)) else {
        return Ok(());
    };
    let mut further = clients + 1..=clients + MORE;
    let enough = further.find(|count| strategy.check_limits(&spec.limits, Some(*count)).is_ok());
    let Some(enough) = enough else {
        return Err(reason);
    };
    let waits = format!("--min-workers {enough}, with which the job waits for as many workers");
    Err(if spec.partition.is_local() {
        format!("{reason}. The job has a client for each worker with data: give {waits}")
    } else {
        format!(
            "{reason}. The job does not say how many clients it has, and so has one for each worker: give --clients (at least \
             {enough}), or {waits}"
        )
    })
}

/// One client for each worker with data of its own.
fn local(spec: &JobSpec, workers: &[Host], config: &CoordinatorConfig) -> Prepared {
    let limit = spec.clients.map_or(usize::MAX, |clients| clients as usize);
    let mut clients = Vec::new();
    let mut owners = BTreeSet::new();
    for host in workers {
        if clients.len() == limit {
            break;
        }
        if let Some(examples) = local_examples(spec, &host.registration, config) {
            owners.insert(host.registration.name.clone());
            clients.push(ClientSpec {
                examples,
                home: Some(host.worker),
            });
        }
    }
    Prepared {
        partitions: vec![Partition::Everything; clients.len()],
        clients,
        fingerprint: String::new(),
        owners,
        // Whose data it is alone can act for it: nothing more binds the client.
        pinned: BTreeMap::new(),
    }
}

/// How many examples of the job's dataset a worker with data of its own counts for; none if it has no such dataset, or the
/// job is not trained on such data.
pub(super) fn local_examples(
    spec: &JobSpec,
    registration: &Registration,
    config: &CoordinatorConfig,
) -> Option<u64> {
    if !spec.partition.is_local() {
        return None;
    }
    let dataset = find(registration, spec)?;
    Some(
        dataset
            .train_examples
            .min(config.uploads.max_local_examples),
    )
}

fn find<'a>(registration: &'a Registration, spec: &JobSpec) -> Option<&'a DatasetInfo> {
    registration
        .datasets
        .iter()
        .find(|dataset| dataset.name == spec.dataset)
}
