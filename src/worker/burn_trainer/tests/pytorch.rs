//! Training steps against PyTorch's.

use super::*;
use crate::model::{
    export, import,
    testing::{devices, fixture, tensor},
    zoo::TinyCnn,
};

const DIGITS: ClassifierShape = ClassifierShape {
    channels: 1,
    height: 8,
    width: 8,
    classes: 10,
};

fn mlp(device: &Device) -> Mlp {
    Mlp::new(&DIGITS, device).unwrap()
}

fn tiny_cnn(device: &Device) -> TinyCnn {
    TinyCnn::new(&DIGITS, device).unwrap()
}

/// Five steps on the fixture's batches.
fn five_steps<C: Classifier>(
    name: &str,
    build: fn(&Device) -> C,
    device: &Device,
    mut optimizer: optimizer::LocalOptimizer,
    lr: f64,
) -> (Parameters, Vec<f32>) {
    let batches = fixture(&format!("{name}.steps"));
    let device = device.clone().autodiff();
    let mut module = import(build(&device), &fixture(name)).unwrap();
    let mut losses = Vec::new();
    for step in 0..5 {
        let images = tensor(&batches, &format!("input.{step}"), &device);
        let labels: Tensor<1, Int> =
            tensor::<1>(&batches, &format!("labels.{step}"), &device).int();
        let batch = BatchLoss::cross_entropy(module.forward(images, None), labels);
        losses.push(batch.loss.clone().into_scalar::<f32>());
        let gradients = GradientsParams::from_grads(batch.loss.backward(), &module);
        module = optimizer.step(lr, module, gradients);
    }
    (export(&module).unwrap(), losses)
}

fn ends_as(outcome: &Parameters, (parameters, losses): (Parameters, Vec<f32>), context: &str) {
    let difference = distance(&losses, outcome.tensor("losses").unwrap());
    assert!(
        difference < 5e-6,
        "{context}: losses differ by {difference}"
    );
    for spec in parameters.layout().tensors() {
        let expected = outcome.tensor(&format!("after.{}", spec.name)).unwrap();
        let difference = distance(parameters.tensor(&spec.name).unwrap(), expected);
        assert!(
            difference < 5e-6,
            "{context}: {} differs by {difference}",
            spec.name
        );
    }
}

#[test]
fn steps_of_sgd_and_adam_end_where_pytorchs_do() {
    let sgd = TrainingSettings {
        lr: 0.1,
        momentum: 0.9,
        weight_decay: 1e-4,
        ..Default::default()
    };
    let adam = TrainingSettings {
        optimizer: OptimizerKind::Adam,
        lr: 1e-3,
        weight_decay: 0.0,
        ..Default::default()
    };
    for (backend, device) in devices() {
        let run = five_steps(
            "mlp",
            mlp,
            &device,
            optimizer::local_optimizer(&sgd),
            sgd.lr,
        );
        ends_as(&fixture("mlp.steps"), run, &format!("mlp, SGD, {backend}"));
        let run = five_steps(
            "mlp",
            mlp,
            &device,
            optimizer::local_optimizer(&adam),
            adam.lr,
        );
        ends_as(&fixture("mlp.adam"), run, &format!("mlp, Adam, {backend}"));
        // BatchNorm's running statistics are among the tensors.
        let run = five_steps(
            "tiny_cnn",
            tiny_cnn,
            &device,
            optimizer::local_optimizer(&sgd),
            sgd.lr,
        );
        ends_as(
            &fixture("tiny_cnn.steps"),
            run,
            &format!("tiny_cnn, SGD, {backend}"),
        );
    }
}
