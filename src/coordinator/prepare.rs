//! Fixing a job's clients and dealing the data over them.

use super::{
    capacity::{Host, first_capacities},
    deal::{deal, sizes},
};
use crate::{
    job::JobSpec,
    partition::{self, Examples},
    protocol::{DatasetInfo, Registration},
    round::ClientSpec,
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
    workers: &[Host],
) -> Result<Prepared, String> {
    if spec.partition.is_local() {
        return Ok(local(spec, workers));
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
    // Before anything of this size is made.
    partition::check(&spec.partition, examples, count).map_err(|error| error.to_string())?;
    let partitions = deal(spec, examples, &first_capacities(spec, workers, count))?;
    Ok(Prepared {
        clients: sizes(&partitions)
            .into_iter()
            .map(|examples| ClientSpec {
                examples,
                home: None,
            })
            .collect(),
        partitions,
        fingerprint: dataset.fingerprint,
    })
}

/// One client for each worker with data of its own.
fn local(spec: &JobSpec, workers: &[Host]) -> Prepared {
    let limit = spec.clients.map_or(usize::MAX, |clients| clients as usize);
    let clients: Vec<_> = workers
        .iter()
        .filter_map(|host| Some((host.worker, find(&host.registration, spec)?)))
        .take(limit)
        .map(|(worker, dataset)| ClientSpec {
            examples: dataset.train_examples,
            home: Some(worker),
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
