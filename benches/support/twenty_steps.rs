//! Twenty steps of `tiny_cnn` in a whole local training, beside those that PyTorch's fixture has.
//!
//! `src/worker/burn_trainer/tests/twenty_steps.rs` uses it, too, on the devices of the machine that runs the tests.

use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use fedavg::{
    burn::tensor::{Device, Tensor, TensorData},
    ids::{ClientId, RoundId},
    job::{JobSpec, OptimizerKind, TrainingSettings},
    model::{Classifier, ClassifierShape, zoo::TinyCnn},
    parameters::{Parameters, safetensors},
    worker::{
        BatchLoss, BurnTrainers, ClientContext, Learner, LocalUpdate, Minibatch, Partition, Split,
        TrainError, TrainTask, TrainerFactory,
    },
};

const BATCH: u32 = 16;
const BATCHES: usize = 5;
const PASSES: u32 = 4;
const STEPS: u64 = 20;
const DATASET: &str = "in order";

/// How far apart two trainings ended.
pub struct Distance {
    /// ||a - b|| / ||b||, of every tensor the largest.
    pub largest: f64,
    /// The name of that tensor.
    pub tensor: String,
    /// How far the mean losses are apart, as a share of PyTorch's.
    pub loss: f64,
}

/// Trains on a factory's device from PyTorch's model, and compares with what PyTorch made of it.
///
/// # Errors
///
/// A fixture can't be read, the optimizer is neither `sgd` nor `adam`, or the training failed.
pub fn distance(
    factory: BurnTrainers,
    fixtures: &Path,
    optimizer: &str,
) -> Result<Distance, Box<dyn Error>> {
    let training = settings(optimizer)?;
    let expected = read(fixtures, &format!("tiny_cnn.{optimizer}20"))?;
    let learner = InOrder {
        batches: read(fixtures, "tiny_cnn.steps")?,
        next: AtomicUsize::new(0),
    };
    let factory = factory.with_learner("tiny_cnn", DATASET, learner);
    let mut trainer = factory.trainer(&JobSpec::new("tiny_cnn", DATASET).description())?;
    let mut task = TrainTask::new(RoundId(1), ClientId(0), Partition::Everything);
    task.training = training;
    let (mut state, cancelled) = (BTreeMap::new(), AtomicBool::new(false));
    let mut context = ClientContext {
        client: task.client,
        state: &mut state,
        cancelled: &cancelled,
        progress: &mut |_, _| {},
    };
    let update = trainer.train(&read(fixtures, "tiny_cnn")?, &task, &mut context)?;
    if update.steps != STEPS {
        return Err(format!("the trainer made {} steps instead of {STEPS}", update.steps).into());
    }
    compare(&update, &expected)
}

/// The settings that `scripts/pytorch_fixtures.py` trained with.
fn settings(optimizer: &str) -> Result<TrainingSettings, Box<dyn Error>> {
    let mut training = TrainingSettings::default();
    training.batch_size = BATCH;
    training.local_epochs = f64::from(PASSES);
    match optimizer {
        "sgd" => {
            training.lr = 0.1;
            training.momentum = 0.9;
            training.weight_decay = 1e-4;
        }
        "adam" => {
            training.optimizer = OptimizerKind::Adam;
            training.lr = 1e-3;
            training.weight_decay = 1e-2;
        }
        other => return Err(format!("{other:?} is no optimizer: expected sgd or adam").into()),
    }
    Ok(training)
}

fn read(fixtures: &Path, name: &str) -> Result<Parameters, Box<dyn Error>> {
    let file = fixtures.join(format!("{name}.safetensors"));
    let bytes = fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(safetensors::decode(&bytes)?)
}

fn compare(update: &LocalUpdate, expected: &Parameters) -> Result<Distance, Box<dyn Error>> {
    let missing = |name: &str| format!("the fixture has no tensor {name:?}");
    let mut distance = Distance {
        largest: 0.0,
        tensor: String::new(),
        loss: 0.0,
    };
    for spec in update.parameters.layout().tensors() {
        let name = format!("after.{}", spec.name);
        let expected = expected.tensor(&name).ok_or_else(|| missing(&name))?;
        let found = update.parameters.tensor(&spec.name).unwrap_or_default();
        let (mut difference, mut length) = (0.0, 0.0);
        for (found, expected) in found.iter().zip(expected) {
            difference += (f64::from(*found) - f64::from(*expected)).powi(2);
            length += f64::from(*expected).powi(2);
        }
        let relative = (difference / length).sqrt();
        if relative > distance.largest {
            distance.largest = relative;
            distance.tensor = spec.name.clone();
        }
    }
    let losses = expected.tensor("losses").ok_or_else(|| missing("losses"))?;
    let mean = losses.iter().map(|loss| f64::from(*loss)).sum::<f64>() / losses.len() as f64;
    let loss = update.metrics.get("train_loss");
    let loss = loss.ok_or("the trainer reports no train_loss")?;
    distance.loss = (loss / mean - 1.0).abs();
    Ok(distance)
}

/// `tiny_cnn` without dropout on the fixture's batches, in the fixture's order, whatever the trainer shuffled.
struct InOrder {
    batches: Parameters,
    next: AtomicUsize,
}

impl InOrder {
    fn tensor<const D: usize>(&self, name: &str, device: &Device) -> Result<Tensor<D>, TrainError> {
        let missing = || TrainError::Task(format!("the fixture has no tensor {name:?}"));
        let spec = self.batches.layout().find(name).ok_or_else(missing)?;
        let values = self.batches.tensor(name).ok_or_else(missing)?.to_vec();
        Ok(Tensor::from_data(
            TensorData::new(values, spec.shape.clone()),
            device,
        ))
    }
}

impl Learner for InOrder {
    type Module = TinyCnn;

    fn module(&self, device: &Device) -> Result<TinyCnn, TrainError> {
        let shape = ClassifierShape {
            channels: 1,
            height: 8,
            width: 8,
            classes: 10,
        };
        TinyCnn::new(&shape, device).map_err(|error| TrainError::Model(error.to_string()))
    }

    fn examples(&self, _split: Split) -> usize {
        BATCH as usize * BATCHES
    }

    fn loss(&self, module: &TinyCnn, batch: Minibatch<'_>) -> Result<BatchLoss, TrainError> {
        let at = self.next.fetch_add(1, Ordering::Relaxed) % BATCHES;
        let images = self.tensor(&format!("input.{at}"), batch.device)?;
        let labels = self.tensor::<1>(&format!("labels.{at}"), batch.device)?;
        let logits = module.forward(images, None);
        Ok(BatchLoss::cross_entropy(logits, labels.int()))
    }
}
