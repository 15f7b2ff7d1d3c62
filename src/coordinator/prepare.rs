//! Fixing a job's clients and dealing the data over them.

use std::sync::Arc;

use crate::{
    data::DatasetInfo,
    ids::{RoundId, WorkerId},
    job::JobSpec,
    partition::{Examples, partition},
    rng::{Purpose, keyed},
    round::ClientSpec,
    transport::Registration,
    worker::{Partition, TrainerFactory},
};

/// A job's clients, and what each of them trains on.
pub(super) struct Prepared {
    pub clients: Vec<ClientSpec>,
    pub partitions: Vec<Partition>,
    pub fingerprint: String,
}

/// Deals the data over the clients; `workers` are those that can train the job, in order of registration.
pub(super) fn prepare(
    spec: &JobSpec,
    trainers: &dyn TrainerFactory,
    workers: &[(WorkerId, Arc<Registration>)],
) -> Result<Prepared, String> {
    if spec.partition.is_local() {
        return Ok(local(spec, workers));
    }
    // The coordinator's own copy is the one that counts; without one, that of the worker that came first.
    let here = trainers.dataset(&spec.dataset).ok();
    let there = || {
        workers
            .iter()
            .find_map(|(_, registration)| find(registration, spec))
    };
    let dataset = here
        .clone()
        .or_else(|| there().cloned())
        .ok_or("nobody has the dataset")?;
    let labels = match here {
        Some(_) if spec.partition.needs_labels() => Some(
            trainers
                .labels(&spec.dataset)
                .map_err(|error| error.to_string())?,
        ),
        _ => None,
    };
    let examples = match &labels {
        Some(labels) => Examples::labelled(labels),
        None => Examples::unlabelled(dataset.train_examples as usize),
    };
    let count = spec
        .clients
        .map_or(workers.len(), |clients| clients as usize);
    let gpus: Vec<u32> = (0..count)
        .map(|client| workers.get(client % workers.len().max(1)))
        .map(|worker| {
            worker.map_or(1, |(_, registration)| {
                registration.hardware.gpus.len().max(1) as u32
            })
        })
        .collect();
    let generator = keyed(spec.seed, Purpose::Partition, RoundId(0), None);
    let dealt = partition(&spec.partition, examples, count, Some(&gpus), generator)
        .map_err(|error| error.to_string())?;
    Ok(Prepared {
        clients: dealt
            .iter()
            .map(|indices| ClientSpec {
                examples: indices.len() as u64,
                home: None,
            })
            .collect(),
        partitions: dealt
            .into_iter()
            .map(|indices| Partition::Indices(Arc::from(indices)))
            .collect(),
        fingerprint: dataset.fingerprint,
    })
}

/// One client for each worker with data of its own.
fn local(spec: &JobSpec, workers: &[(WorkerId, Arc<Registration>)]) -> Prepared {
    let limit = spec.clients.map_or(usize::MAX, |clients| clients as usize);
    let clients: Vec<_> = workers
        .iter()
        .filter_map(|(worker, registration)| Some((worker, find(registration, spec)?)))
        .take(limit)
        .map(|(worker, dataset)| ClientSpec {
            examples: dataset.train_examples,
            home: Some(*worker),
        })
        .collect();
    let partitions = vec![Partition::Everything; clients.len()];
    Prepared {
        clients,
        partitions,
        fingerprint: String::new(),
    }
}

fn find<'a>(registration: &'a Registration, spec: &JobSpec) -> Option<&'a DatasetInfo> {
    registration
        .datasets
        .iter()
        .find(|dataset| dataset.name == spec.dataset)
}
