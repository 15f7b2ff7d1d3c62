//! BatchNorm's statistics under every encoding: they travel as they are, so that a version has exactly the mean of what the clients
//! had, and no variance below zero.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use super::*;
use crate::{
    backend::DeviceSpec,
    job::{JobDescription, JobSpec},
    parameters::{Encoding, Parameters, Role},
    protocol::DatasetInfo,
    round::Evaluation,
    worker::{
        BurnTrainers, ClientContext, EvalTask, LocalTrainer, LocalUpdate, TrainError, TrainTask,
        TrainerFactory,
    },
};

/// What the clients trained, by round: their examples, and the local model.
type Trained = Arc<Mutex<BTreeMap<u64, Vec<(u64, Parameters)>>>>;

/// burn's trainers, whose updates are noted, and whose versions are compared with them when they are evaluated.
struct Noting {
    inner: BurnTrainers,
    trained: Trained,
}

struct NotingTrainer {
    inner: Box<dyn LocalTrainer>,
    trained: Trained,
}

impl TrainerFactory for Noting {
    fn trainer(&self, job: &JobDescription) -> Result<Box<dyn LocalTrainer>, TrainError> {
        Ok(Box::new(NotingTrainer {
            inner: self.inner.trainer(job)?,
            trained: self.trained.clone(),
        }))
    }
    fn initial(&self, job: &JobDescription) -> Result<Parameters, TrainError> {
        self.inner.initial(job)
    }
    fn dataset(&self, name: &str) -> Result<DatasetInfo, TrainError> {
        self.inner.dataset(name)
    }
    fn labels(&self, dataset: &str) -> Result<Arc<[u16]>, TrainError> {
        self.inner.labels(dataset)
    }
    fn datasets(&self) -> Vec<DatasetInfo> {
        self.inner.datasets()
    }
}

impl LocalTrainer for NotingTrainer {
    fn train(
        &mut self,
        global: &Parameters,
        task: &TrainTask,
        context: &mut ClientContext<'_>,
    ) -> Result<LocalUpdate, TrainError> {
        let update = self.inner.train(global, task, context)?;
        let noted = (update.examples, update.parameters.clone());
        let mut trained = self.trained.lock().unwrap();
        trained.entry(task.round.0).or_default().push(noted);
        Ok(update)
    }

    fn evaluate(
        &mut self,
        global: &Parameters,
        task: &EvalTask,
        context: &mut ClientContext<'_>,
    ) -> Result<Evaluation, TrainError> {
        let evaluation = self.inner.evaluate(global, task, context)?;
        let distance = distance(global, &self.trained.lock().unwrap()[&task.version.0]);
        Ok(evaluation.with_metric("distance", distance))
    }
}

/// The largest distance of a buffer's value from the mean of the clients', as a share of the largest of theirs.
fn distance(version: &Parameters, clients: &[(u64, Parameters)]) -> f64 {
    let total: u64 = clients.iter().map(|(examples, _)| examples).sum();
    let mut largest: f64 = 0.0;
    for tensor in version.layout().tensors() {
        if tensor.role != Role::Buffer {
            continue;
        }
        for index in tensor.range() {
            let value = version.values()[index];
            if tensor.name.ends_with("running_var") {
                assert!(value >= 0.0, "{}: {value}", tensor.name);
            }
            let (mut mean, mut size) = (0.0, f64::MIN_POSITIVE);
            for (examples, local) in clients {
                let local = f64::from(local.values()[index]);
                mean += local * *examples as f64 / total as f64;
                size = size.max(local.abs());
            }
            largest = largest.max((f64::from(value) - mean).abs() / size);
        }
    }
    largest
}

fn check(rounds: u32, encoding: &str, partition: &str) {
    let trainers = Noting {
        inner: BurnTrainers::new(DeviceSpec::Cpu).unwrap(),
        trained: Trained::default(),
    };
    let mut spec = JobSpec::new("tiny_cnn", "digits");
    spec.clients = Some(4);
    spec.rounds = rounds;
    spec.training.lr = 0.05;
    spec.partition = partition.parse().unwrap();
    spec.encoding.reports = encoding.parse::<Encoding>().unwrap();
    let run = Simulation::new(spec, Arc::new(trainers)).run().unwrap();
    // Each version was evaluated, the last one included: none has a value that can't be.
    assert_eq!(run.rounds.len() as u32, rounds);
    for record in &run.rounds {
        let distance = record.test_metrics["distance"];
        let round = record.round;
        assert!(distance < 1e-6, "{encoding}, round {round}: {distance}");
    }
}

#[test]
fn buffers_are_the_mean_of_the_clients_whatever_the_encoding() {
    for encoding in ["f32", "f16", "bf16", "int8", "top_k:0.1"] {
        check(3, encoding, "dirichlet:0.5");
    }
}

/// With a residual and a sparse form, buffers once wandered off, to variances of -5, and no later version could be evaluated.
#[test]
fn buffers_stay_right_if_next_to_nothing_is_sent() {
    check(15, "top_k:0.0001", "iid");
}
