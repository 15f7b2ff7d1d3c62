//! A burn module and data of one's own, trained by federated averaging: `cargo run --release --example custom_model`.
//!
//! The model learns to tell the points of two spirals apart. Each of eight clients trains on a part of the points.

use std::{f32::consts::TAU, sync::Arc};

use burn::{
    module::Module,
    nn::{Linear, LinearConfig},
    tensor::{Device, Int, Tensor, activation::relu},
};
use fedavg::{
    backend::DeviceSpec,
    job::{JobSpec, OptimizerKind},
    partition::PartitionSpec,
    simulation::Simulation,
    worker::{BatchLoss, BurnTrainers, Learner, Minibatch, Split, TrainError},
};

/// Any burn module will do. Its values are averaged by their names: `hidden.weight` and so on.
#[derive(Module, Debug)]
pub struct SpiralNet {
    hidden: Linear,
    deep: Linear,
    output: Linear,
}

/// The data: 1600 points to train on, 400 to evaluate the global model on.
#[derive(Debug)]
pub struct Spirals;

/// A point on the spiral of its label.
fn example(split: Split, index: u32) -> ([f32; 2], i32) {
    let number = if split == Split::Train {
        index
    } else {
        index + 1600
    };
    let label = (number % 2) as i32;
    let along = (number as f32 * 0.618).fract();
    let angle = TAU * (along + 0.5 * label as f32);
    ([along * angle.cos(), along * angle.sin()], label)
}

impl Learner for Spirals {
    type Module = SpiralNet;

    fn module(&self, device: &Device) -> Result<SpiralNet, TrainError> {
        Ok(SpiralNet {
            hidden: LinearConfig::new(2, 32).init(device),
            deep: LinearConfig::new(32, 32).init(device),
            output: LinearConfig::new(32, 2).init(device),
        })
    }

    fn examples(&self, split: Split) -> usize {
        match split {
            Split::Train => 1600,
            Split::Test => 400,
        }
    }

    fn loss(&self, net: &SpiralNet, batch: Minibatch<'_>) -> Result<BatchLoss, TrainError> {
        let examples = batch.examples.iter();
        let (points, labels): (Vec<[f32; 2]>, Vec<i32>) =
            examples.map(|&index| example(batch.split, index)).unzip();
        let points = Tensor::<1>::from_floats(points.as_flattened(), batch.device);
        let labels = Tensor::<1, Int>::from_ints(labels.as_slice(), batch.device);
        let x = relu(net.hidden.forward(points.reshape([-1, 2])));
        let logits = net.output.forward(relu(net.deep.forward(x)));
        Ok(BatchLoss::cross_entropy(logits, labels))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let trainers =
        BurnTrainers::new(DeviceSpec::Cpu)?.with_learner("spiral_net", "spirals", Spirals);
    let mut job = JobSpec::new("spiral_net", "spirals");
    job.clients = Some(8);
    job.partition = PartitionSpec::QuantitySkew { alpha: 1.0 };
    job.rounds = 30;
    job.training.optimizer = OptimizerKind::Adam;
    job.training.local_epochs = 3.0;
    let result = Simulation::new(job, Arc::new(trainers)).workers(2).run()?;
    for round in result.rounds.iter().step_by(5) {
        let accuracy = round.test_accuracy.unwrap_or_default();
        println!("round {}: accuracy {accuracy:.3}", round.round);
    }
    println!("the model has {} values", result.model.values().len());
    Ok(())
}
