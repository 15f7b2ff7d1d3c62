//! Tensors that a job does not average: frozen ones stay as they are, to the bit, and personal ones are trained as all others.

use burn::module::Module;

use super::*;
use crate::{job::InnerState, objective::Objective, parameters::TensorPatterns, rng::ChaCha8Rng};

/// `mlp` with names of its own; its body without gradients, if that is asked for.
#[derive(Module, Debug)]
struct Two {
    body: Linear,
    head: Linear,
}

impl Two {
    fn new(shape: &ClassifierShape, device: &Device) -> Self {
        Self {
            body: LinearConfig::new(shape.pixels(), 24).init(device),
            head: LinearConfig::new(24, shape.classes).init(device),
        }
    }

    fn with_fixed_body(shape: &ClassifierShape, device: &Device) -> Self {
        let Self { body, head } = Self::new(shape, device);
        Self {
            body: body.no_grad(),
            head,
        }
    }
}

impl Classifier for Two {
    fn forward(&self, images: Tensor<4>, _dropout: Option<&mut ChaCha8Rng>) -> Tensor<2> {
        let hidden = burn::tensor::activation::relu(self.body.forward(images.flatten(1, 3)));
        self.head.forward(hidden)
    }
}

/// The model with these tensors not averaged.
fn without(model: &Parameters, patterns: &[&str]) -> Parameters {
    let patterns = TensorPatterns::new(patterns.iter().copied());
    let layout = model.layout().with_roles(|name, role| {
        if patterns.matches(name) {
            Role::Frozen
        } else {
            role
        }
    });
    Parameters::new(layout, model.values().to_vec()).unwrap()
}

/// Momentum, decay and clipping: whatever could move a tensor that has no gradient.
fn tasks() -> Vec<TrainTask> {
    let mut sgd = task(3, 1, 0..100);
    sgd.training.weight_decay = 0.01;
    sgd.training.clip_norm = Some(0.5);
    let mut adam = sgd.clone();
    adam.training.optimizer = OptimizerKind::AdamW;
    adam.training.lr = 0.01;
    adam.training.inner_state = InnerState::Keep;
    vec![sgd, adam]
}

#[test]
fn a_frozen_body_trains_to_the_bits_of_a_module_whose_body_has_no_gradient() {
    for factory in factories() {
        let factory = factory
            .with_model("two", Two::new)
            .with_model("fixed", Two::with_fixed_body);
        let global = factory.initial(&job("two")).unwrap();
        let frozen = without(&global, &["body.*"]);
        for task in tasks() {
            let mut trainer = factory.trainer(&job("two")).unwrap();
            let found = train(&mut *trainer, &frozen, &task).unwrap().parameters;
            let mut reference = factory.trainer(&job("fixed")).unwrap();
            let expected = train(&mut *reference, &global, &task).unwrap().parameters;
            assert_eq!(found.values(), expected.values());
            for tensor in frozen.layout().tensors() {
                let moved = found.tensor(&tensor.name) != global.tensor(&tensor.name);
                assert_eq!(moved, tensor.name.starts_with("head"), "{}", tensor.name);
            }
            let all = train(&mut *trainer, &global, &task).unwrap().parameters;
            assert_ne!(all.values(), expected.values());
        }
    }
}

#[test]
fn frozen_statistics_are_the_global_models_and_personal_ones_are_the_clients() {
    for factory in factories() {
        let mut trainer = factory.trainer(&job("tiny_cnn")).unwrap();
        let global = factory.initial(&job("tiny_cnn")).unwrap();
        let frozen = without(&global, &["bn1.*", "bn2.*"]);
        let mut task = task(1, 0, 0..64);
        task.personal = TensorPatterns::new(["bn2.*"]);
        let update = train(&mut *trainer, &frozen, &task).unwrap();
        for tensor in frozen.layout().tensors() {
            let moved = update.parameters.tensor(&tensor.name) != global.tensor(&tensor.name);
            assert_eq!(moved, !tensor.name.starts_with("bn1"), "{}", tensor.name);
        }
        // A personal tensor is trained as if it were averaged: without frozen ones, the bits are those of a plain job.
        task.personal = TensorPatterns::new(["bn*"]);
        let personal = train(&mut *trainer, &frozen, &task).unwrap();
        task.personal = TensorPatterns::default();
        let plain = train(&mut *trainer, &global, &task).unwrap();
        assert_eq!(personal.parameters.values(), plain.parameters.values());
    }
}

#[test]
fn an_objective_holds_what_is_averaged_and_nothing_else() {
    for factory in factories() {
        let factory = factory.with_model("two", Two::new);
        let mut trainer = factory.trainer(&job("two")).unwrap();
        let global = factory.initial(&job("two")).unwrap();
        let mut task = task(1, 0, 0..100);
        task.personal = TensorPatterns::new(["head.*"]);
        let all = without(&global, &["body.*", "head.*"]);
        let plain = train(&mut *trainer, &all, &task).unwrap();
        task.objective = Objective::Proximal { mu: 1.0 };
        // All that is trained is personal: nothing is left to hold.
        let held = train(&mut *trainer, &all, &task).unwrap();
        assert_eq!(held.parameters.values(), plain.parameters.values());
        // With an averaged body, it is held.
        let head = without(&global, &["head.*"]);
        let held = train(&mut *trainer, &head, &task).unwrap();
        task.objective = Objective::Plain;
        let free = train(&mut *trainer, &head, &task).unwrap();
        let moved = |update: &LocalUpdate| {
            distance(
                update.parameters.tensor("body.weight").unwrap(),
                global.tensor("body.weight").unwrap(),
            )
        };
        assert!(
            moved(&held) < moved(&free),
            "{} {}",
            moved(&held),
            moved(&free)
        );
    }
}
