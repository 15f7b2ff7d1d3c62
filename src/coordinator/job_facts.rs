//! What is written down of a job beside its machine and its logs.

use super::{
    facts::{DATA, DataFact, JobFact, PARTITIONS, Stage, VERSION, json, partitions_fact},
    job::Job,
};
use crate::{
    access::hex,
    round::Event,
    store::{
        PublishedVersion,
        journal::{Batch, Body},
    },
    worker::Partition,
};

impl Job {
    /// What is written down of the job itself.
    pub fn fact(&self) -> JobFact {
        let stage = match (&self.machine, self.ended) {
            (_, Some(_)) => Stage::Ended,
            (Some(_), None) => Stage::Running,
            (None, None) => Stage::Queued,
        };
        JobFact {
            spec: self.spec.clone(),
            once: self.once.clone(),
            continuation: self.continuation.clone(),
            evaluation: self.evaluation,
            secret: hex(&self.seeds.secret),
            initial_digest: self.initial_digest,
            stage,
            submitted: self.submitted,
            ended: self.ended,
            outcome: self.outcome().cloned(),
        }
    }

    /// What is written down of its data.
    pub fn data_fact(&self) -> DataFact {
        let partitions = self.partitions.iter();
        let local = partitions.filter(|partition| **partition == Partition::Everything);
        DataFact {
            fingerprint: self.fingerprint.clone(),
            owners: self.owners.clone(),
            pinned: self.pinned.clone(),
            generation: self.generation,
            local_clients: local.count(),
        }
    }

    /// What is written down of its latest version.
    pub fn models_published(&self) -> PublishedVersion {
        let latest = self.models.values().next_back();
        latest.map(|model| model.published()).unwrap_or_default()
    }

    /// What is written down together with an event: what the driver fixed just before it.
    pub fn facts_with(&self, event: &Event) -> Batch {
        let batch = Batch::default();
        match event {
            Event::Prepared(Ok(_))
            | Event::Dealt {
                examples: Some(_), ..
            } => {
                let batch = batch.fact(DATA, json(&self.data_fact()));
                if self.spec.partition.is_local() {
                    return batch;
                }
                let partitions = self.partitions.clone();
                // On the journal's thread: there can be twenty million examples.
                let body = Body::Later(Box::new(move || partitions_fact(&partitions)));
                batch.fact(PARTITIONS, body)
            }
            // The name of a worker that pinned clients go to.
            Event::WorkerJoined {
                replaces: Some(_), ..
            } if self.spec.pins_clients() => batch.fact(DATA, json(&self.data_fact())),
            Event::Published {
                version,
                published: Ok(()),
            } => match self.models.get(version) {
                Some(model) => batch.fact(format!("{VERSION}{version}"), json(&model.published())),
                None => batch,
            },
            _ => batch,
        }
    }
}
