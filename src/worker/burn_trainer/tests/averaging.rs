//! Federated averaging against plain references: what a round makes of clients' training.

use super::*;

/// One round of FedAvg over these clients' tasks.
fn round(
    trainer: &mut dyn LocalTrainer,
    global: &Parameters,
    tasks: &[TrainTask],
) -> (Parameters, Vec<LocalUpdate>) {
    let updates: Vec<LocalUpdate> = tasks
        .iter()
        .map(|task| train(trainer, global, task).unwrap())
        .collect();
    let reports: Vec<Report> = updates
        .iter()
        .zip(tasks)
        .map(|(update, task)| {
            let metadata = ReportMetadata {
                base_version: task.version,
                examples: update.examples,
                steps: update.steps,
                metrics: update.metrics.clone(),
                ..ReportMetadata::default()
            };
            let delta = update.parameters.clone().into_delta(global).unwrap();
            let payloads = vec![(DELTA.to_string(), Arc::new(delta) as _)];
            Report::new(task.client, task.round, metadata, payloads)
        })
        .collect();
    let next = next_model(&FedAvg::default(), global, &reports).unwrap();
    (next, updates)
}

/// The distance from one f32 of this size to the next.
fn unit(value: f32) -> f64 {
    let value = value.abs().max(f32::MIN_POSITIVE);
    f64::from(f32::from_bits(value.to_bits() + 1)) - f64::from(value)
}

/// The mean of the local models, weighted by examples.
fn reference(updates: &[LocalUpdate]) -> Vec<f64> {
    let total: f64 = updates.iter().map(|update| update.examples as f64).sum();
    let mut mean = vec![0.0; updates[0].parameters.values().len()];
    for update in updates {
        for (mean, &value) in mean.iter_mut().zip(update.parameters.values()) {
            *mean += f64::from(value) * update.examples as f64 / total;
        }
    }
    mean
}

/// Each value within this many units in the last place of the largest of the values that it is made of.
fn is_the_mean(units: f64, next: &Parameters, global: &Parameters, updates: &[LocalUpdate]) {
    for (at, expected) in reference(updates).into_iter().enumerate() {
        let locals = updates.iter().map(|update| update.parameters.values()[at]);
        let largest = locals
            .chain([global.values()[at]])
            .fold(0f32, |max, value| max.max(value.abs()));
        let difference = (f64::from(next.values()[at]) - expected).abs();
        assert!(
            difference <= units * unit(largest),
            "value {at}: {difference:e} from {expected}"
        );
    }
}

#[test]
fn several_clients_make_the_weighted_mean_of_their_models() {
    for factory in factories() {
        for model in ["mlp", "tiny_cnn"] {
            let mut trainer = factory.trainer(&job(model)).unwrap();
            let mut global = factory.initial(&job(model)).unwrap();
            for number in 1..=3 {
                let tasks: Vec<TrainTask> = [(0, 0..30), (1, 30..130), (4, 130..137)]
                    .map(|(client, examples)| task(number, client, examples))
                    .into();
                let (next, updates) = round(&mut *trainer, &global, &tasks);
                // A delta is rounded to f32, and so is the mean.
                is_the_mean(1.5, &next, &global, &updates);
                assert!(distance(next.values(), global.values()) > 1e-3);
                global = next;
            }
        }
    }
}

/// Plain SGD with a momentum that starts at zero: its own loop, its own update on the host, nothing of the trainer's
/// but the order of the examples.
fn local_sgd(module: Mlp, task: &TrainTask, dataset: &Dataset, device: &Device) -> Parameters {
    let Partition::Indices(indices) = &task.partition else {
        panic!("the test's tasks have indices");
    };
    let mut order = indices.to_vec();
    let mut rng = keyed(task.seed, Purpose::Shuffle, task.round, Some(task.client));
    let transform = dataset.transform().unwrap();
    let (mut module, mut batch) = (module, Batch::default());
    let mut values = model::export(&module).unwrap();
    let mut velocity: Option<Vec<f32>> = None;
    for _ in 0..task.training.local_epochs as u32 {
        order.shuffle(&mut rng);
        for examples in order.chunks(task.training.batch_size as usize) {
            transform
                .fill(&dataset.train, examples, &mut batch)
                .unwrap();
            let images = Tensor::<1>::from_floats(batch.pixels.as_slice(), device);
            let labels = Tensor::<1, Int>::from_ints(batch.labels.as_slice(), device);
            let logits = module.forward(images.reshape([examples.len(), 1, 8, 8]), None);
            let gradients = BatchLoss::cross_entropy(logits, labels).loss.backward();
            let gradient = gradients_of(&module, &gradients);
            let (decay, momentum) = (
                task.training.weight_decay as f32,
                task.training.momentum as f32,
            );
            let decayed: Vec<f32> = gradient
                .values()
                .iter()
                .zip(values.values())
                .map(|(gradient, value)| gradient + decay * value)
                .collect();
            let moved = match velocity {
                None => decayed,
                Some(velocity) => velocity
                    .iter()
                    .zip(decayed)
                    .map(|(velocity, gradient)| momentum * velocity + gradient)
                    .collect(),
            };
            for (value, step) in values.values_mut().iter_mut().zip(&moved) {
                *value -= task.training.lr as f32 * step;
            }
            velocity = Some(moved);
            module = model::import(module, &values).unwrap();
        }
    }
    values
}

/// The gradients as values of the module's layout.
fn gradients_of(module: &Mlp, gradients: &burn::tensor::Gradients) -> Parameters {
    struct Replace<'a>(&'a burn::tensor::Gradients);
    impl burn::module::ModuleMapper for Replace<'_> {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let gradient = param.val().grad(self.0).unwrap();
            Param::from_tensor(Tensor::from_inner(gradient))
        }
    }
    model::export(&module.clone().map(&mut Replace(gradients))).unwrap()
}

#[test]
fn one_client_is_local_sgd_whose_optimizer_restarts_each_round() {
    let dataset = digits().unwrap();
    let shape = ClassifierShape {
        channels: 1,
        height: 8,
        width: 8,
        classes: 10,
    };
    for name in ["flex", "ndarray", "libtorch"] {
        let Ok(factory) = BurnTrainers::new(name.parse().unwrap()) else {
            continue;
        };
        let device = name
            .parse::<DeviceSpec>()
            .unwrap()
            .device()
            .unwrap()
            .autodiff();
        let mut trainer = factory.trainer(&job("mlp")).unwrap();
        let mut global = factory.initial(&job("mlp")).unwrap();
        for number in 1..=4 {
            let mut task = task(number, 0, 0..100);
            task.training.local_epochs = 2.0;
            let (next, updates) = round(&mut *trainer, &global, std::slice::from_ref(&task));
            is_the_mean(1.0, &next, &global, &updates);

            let module = Mlp::new(&shape, &device).unwrap();
            let module = model::import(module, &global).unwrap();
            let expected = local_sgd(module, &task, &dataset, &device);
            let difference = distance(next.values(), expected.values());
            assert!(difference < 1e-6, "round {number} on {name}: {difference}");
            global = next;
        }
    }
}
