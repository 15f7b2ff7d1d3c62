//! Twenty steps of a whole local training against PyTorch's, on every device that is here.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::model::{
    testing::{fixture, tensor},
    zoo::TinyCnn,
};

const BATCH: u32 = 16;
const BATCHES: usize = 5;
const PASSES: u32 = 4;

/// `tiny_cnn` without dropout on the fixture's batches, in the fixture's order, whatever the trainer shuffled.
struct InOrder {
    batches: Parameters,
    next: AtomicUsize,
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
        let images = tensor(&self.batches, &format!("input.{at}"), batch.device);
        let labels = tensor::<1>(&self.batches, &format!("labels.{at}"), batch.device).int();
        let logits = module.forward(images, None);
        Ok(BatchLoss::cross_entropy(logits, labels))
    }
}

/// Where the trainer ends after twenty steps from PyTorch's file.
fn twenty_steps(factory: BurnTrainers, training: &TrainingSettings) -> LocalUpdate {
    let learner = InOrder {
        batches: fixture("tiny_cnn.steps"),
        next: AtomicUsize::new(0),
    };
    let factory = factory.with_learner("tiny_cnn", "in order", learner);
    let job = JobDescription {
        dataset: "in order".to_string(),
        ..job("tiny_cnn")
    };
    let mut task = task(1, 0, []);
    task.partition = Partition::Everything;
    task.training = TrainingSettings {
        batch_size: BATCH,
        local_epochs: PASSES,
        ..training.clone()
    };
    let mut trainer = factory.trainer(&job).unwrap();
    let update = train(&mut *trainer, &fixture("tiny_cnn"), &task).unwrap();
    assert_eq!(update.steps, 20);
    update
}

/// ||a - b|| / ||b||, of every tensor the largest, and the tensor's name.
fn farthest(update: &LocalUpdate, expected: &Parameters) -> (f64, String) {
    let norm = |values: &mut dyn Iterator<Item = f64>| -> f64 {
        values.map(|value| value * value).sum::<f64>().sqrt()
    };
    let parameters = &update.parameters;
    let tensors = parameters.layout().tensors().iter().map(|spec| {
        let expected = expected.tensor(&format!("after.{}", spec.name)).unwrap();
        let pairs = parameters.tensor(&spec.name).unwrap().iter().zip(expected);
        let difference = norm(&mut pairs.map(|(a, b)| f64::from(*a) - f64::from(*b)));
        let length = norm(&mut expected.iter().map(|b| f64::from(*b)));
        (difference / length, spec.name.clone())
    });
    tensors.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap()
}

#[test]
fn twenty_steps_end_where_pytorchs_do_on_every_device() {
    let sgd = TrainingSettings {
        lr: 0.1,
        momentum: 0.9,
        weight_decay: 1e-4,
        ..Default::default()
    };
    let adam = TrainingSettings {
        optimizer: OptimizerKind::Adam,
        lr: 1e-3,
        weight_decay: 1e-2,
        ..Default::default()
    };
    let mut ran = 0;
    for name in DeviceSpec::built() {
        // One device of each kind; the names that stand for another of them add nothing.
        let name = name.replace("INDEX", "0");
        let spec: DeviceSpec = name.parse().unwrap();
        if matches!(spec, DeviceSpec::Cpu | DeviceSpec::Auto) {
            continue;
        }
        for (file, training) in [("tiny_cnn.sgd20", &sgd), ("tiny_cnn.adam20", &adam)] {
            let factory = match BurnTrainers::new(spec) {
                Ok(factory) => factory,
                Err(error) => {
                    eprintln!("{file} on {name}: skipped, {error}");
                    continue;
                }
            };
            let expected = fixture(file);
            let update = twenty_steps(factory, training);
            let (difference, tensor) = farthest(&update, &expected);
            eprintln!("{file} on {name}: {difference:.1e}, in {tensor}");
            assert!(
                difference <= 1e-3,
                "{file} on {name}: {tensor} is {difference:.1e} from PyTorch's"
            );
            // The losses before each step, whose mean a report has.
            let losses = expected.tensor("losses").unwrap();
            let mean = losses.iter().map(|loss| f64::from(*loss)).sum::<f64>() / 20.0;
            let loss = update.metrics["train_loss"];
            assert!((loss / mean - 1.0).abs() < 1e-3, "{name}: {loss}, {mean}");
            ran += 1;
        }
    }
    assert!(ran >= 2, "no device at all");
}
