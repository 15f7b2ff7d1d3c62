use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

use burn::{
    module::Param,
    nn::{Linear, LinearConfig},
    tensor::{Int, Tensor},
};

use super::*;
use crate::{
    backend::DeviceSpec,
    data::{Augmentation, Batch, Dataset, digits},
    ids::{ClientId, ModelVersion, RoundId},
    job::{Augment, JobDescription, OptimizerKind, TrainingSettings},
    model::{Classifier, ClassifierShape, testing::distance, zoo::Mlp},
    parameters::Role,
    report::{DELTA, Report, ReportMetadata},
    strategy::{FedAvg, testing::next_model},
    worker::TrainerFactory,
};

mod averaging;
mod fixed;
mod local_training;
mod pytorch;
mod registry;
mod twenty_steps;

/// A factory for every CPU device that is compiled in.
fn factories() -> Vec<BurnTrainers> {
    ["flex", "ndarray", "libtorch"]
        .into_iter()
        .filter_map(|name| BurnTrainers::new(name.parse().unwrap()).ok())
        .collect()
}

fn job(model: &str) -> JobDescription {
    JobDescription {
        model: model.to_string(),
        ..Default::default()
    }
}

fn task(round: u64, client: u32, examples: impl IntoIterator<Item = u32>) -> TrainTask {
    let partition = Partition::Indices(examples.into_iter().collect());
    let mut task = TrainTask::new(RoundId(round), ClientId(client), partition);
    task.version = ModelVersion(round - 1);
    task.seed = 1337;
    task.training.batch_size = 16;
    task.training.lr = 0.05;
    task
}

/// Calls with a context of its own.
fn with_context<T>(client: ClientId, call: impl FnOnce(&mut ClientContext<'_>) -> T) -> T {
    let (mut state, cancelled) = (BTreeMap::new(), AtomicBool::new(false));
    call(&mut ClientContext {
        client,
        state: &mut state,
        cancelled: &cancelled,
        progress: &mut |_, _| {},
    })
}

fn train(
    trainer: &mut dyn LocalTrainer,
    global: &Parameters,
    task: &TrainTask,
) -> Result<LocalUpdate, TrainError> {
    with_context(task.client, |context| trainer.train(global, task, context))
}

fn evaluate(
    trainer: &mut dyn LocalTrainer,
    global: &Parameters,
    share: u32,
    shares: u32,
) -> Result<Evaluation, TrainError> {
    let task = EvalTask::test(ModelVersion(0), share, shares);
    with_context(ClientId(0), |context| {
        trainer.evaluate(global, &task, context)
    })
}

#[test]
fn a_client_learns_the_digits() {
    for factory in factories() {
        for model in ["mlp", "tiny_cnn"] {
            let mut trainer = factory.trainer(&job(model)).unwrap();
            let initial = factory.initial(&job(model)).unwrap();
            let before = evaluate(&mut *trainer, &initial, 0, 1).unwrap();
            let mut task = task(1, 0, 0..1442);
            task.partition = Partition::Everything;
            task.training.local_epochs = 6.0;
            let update = train(&mut *trainer, &initial, &task).unwrap();
            let after = evaluate(&mut *trainer, &update.parameters, 0, 1).unwrap();
            assert!(before.accuracy.unwrap() < 0.4, "{model}: {before:?}");
            assert!(after.accuracy.unwrap() > 0.9, "{model}: {after:?}");
            assert!(after.loss < before.loss);
            assert_eq!((update.examples, after.examples), (1442, 355));
            // The smaller last batch of a pass is a step too.
            assert_eq!(update.steps, 6 * 1442_u64.div_ceil(16));
            let accuracy = update.metrics["train_accuracy"];
            assert!((0.5..1.0).contains(&accuracy), "{accuracy}");
            assert!(update.metrics["train_loss"] < before.loss);
        }
    }
}

#[test]
fn adam_learns_too() {
    for factory in factories() {
        let mut trainer = factory.trainer(&job("mlp")).unwrap();
        let initial = factory.initial(&job("mlp")).unwrap();
        let mut task = task(1, 0, 0..1442);
        task.training.optimizer = OptimizerKind::Adam;
        task.training.lr = 1e-3;
        task.training.local_epochs = 5.0;
        let update = train(&mut *trainer, &initial, &task).unwrap();
        let after = evaluate(&mut *trainer, &update.parameters, 0, 1).unwrap();
        assert!(after.accuracy.unwrap() > 0.85, "{after:?}");
    }
}

/// Digits that are cropped and mirrored, so that a task draws for every purpose there is.
fn varied_digits() -> Dataset {
    Dataset {
        augmentation: Augmentation::CIFAR10,
        ..digits().unwrap()
    }
}

/// Dropout, BatchNorm, shuffling and augmentation: the same task gives the same bits on whatever thread, after whatever
/// else, and beside another trainer.
#[test]
fn a_task_gives_the_same_bits_whatever_ran_before_or_beside_it() {
    for factory in factories() {
        let factory = factory.with_dataset("varied", varied_digits());
        let job = JobDescription {
            dataset: "varied".to_string(),
            ..job("tiny_cnn")
        };
        let initial = factory.initial(&job).unwrap();
        let tasks: Vec<TrainTask> = (0..4)
            .map(|client| {
                let mut task = task(3, client, client * 50..client * 50 + 40);
                task.training.augment = Augment::Zeros;
                task.training.local_epochs = 2.0;
                task
            })
            .collect();
        let alone: Vec<LocalUpdate> = tasks
            .iter()
            .map(|task| train(&mut *factory.trainer(&job).unwrap(), &initial, task).unwrap())
            .collect();
        let run = |backwards: bool| {
            let mut trainer = factory.trainer(&job).unwrap();
            let mut updates: Vec<LocalUpdate> = Vec::new();
            let mut order: Vec<_> = tasks.iter().collect();
            if backwards {
                order.reverse();
            }
            for task in order {
                evaluate(&mut *trainer, &alone[0].parameters, 0, 3).unwrap();
                updates.push(train(&mut *trainer, &initial, task).unwrap());
            }
            if backwards {
                updates.reverse();
            }
            updates
        };
        let (forwards, backwards) = std::thread::scope(|scope| {
            let one = scope.spawn(|| run(false));
            let other = scope.spawn(|| run(true));
            (one.join().unwrap(), other.join().unwrap())
        });
        assert_eq!(forwards, alone);
        assert_eq!(backwards, alone);

        // And each part of the key matters.
        let again = |change: fn(&mut TrainTask)| {
            let mut task = tasks[0].clone();
            change(&mut task);
            train(&mut *factory.trainer(&job).unwrap(), &initial, &task).unwrap()
        };
        assert_ne!(again(|task| task.seed += 1).parameters, alone[0].parameters);
        assert_ne!(
            again(|task| task.round = RoundId(4)).parameters,
            alone[0].parameters
        );
        assert_ne!(
            again(|task| task.client = ClientId(9)).parameters,
            alone[0].parameters
        );
        assert_ne!(
            again(|task| task.training.augment = Augment::Off).parameters,
            alone[0].parameters
        );
    }
}

#[test]
fn shares_of_the_test_split_come_to_the_whole() {
    for factory in factories() {
        let mut trainer = factory.trainer(&job("tiny_cnn")).unwrap();
        let initial = factory.initial(&job("tiny_cnn")).unwrap();
        let whole = evaluate(&mut *trainer, &initial, 0, 1).unwrap();
        let shares: Vec<Evaluation> = (0..4)
            .map(|share| evaluate(&mut *trainer, &initial, share, 4).unwrap())
            .collect();
        let counts: Vec<u64> = shares.iter().map(|share| share.examples).collect();
        assert_eq!(counts, [88, 89, 89, 89]);
        let mean = Evaluation::mean(&shares).unwrap();
        assert!((mean.loss - whole.loss).abs() < 1e-6);
        let accuracy = [&mean, &whole].map(|evaluation| evaluation.accuracy.unwrap());
        assert!((accuracy[0] - accuracy[1]).abs() < 1e-12);
        assert!(matches!(
            evaluate(&mut *trainer, &initial, 4, 4),
            Err(TrainError::Task(_))
        ));
        assert!(matches!(
            evaluate(&mut *trainer, &initial, 0, 0),
            Err(TrainError::Task(_))
        ));
    }
}

#[test]
fn a_cancelled_task_stops_at_the_next_batch_and_progress_counts_examples() {
    for factory in factories() {
        let mut trainer = factory.trainer(&job("mlp")).unwrap();
        let initial = factory.initial(&job("mlp")).unwrap();
        let mut task = task(1, 0, 0..40);
        task.training.local_epochs = 2.0;
        let (mut state, cancelled) = (BTreeMap::new(), AtomicBool::new(false));
        let mut seen = Vec::new();
        let mut progress = |done, total| seen.push((done, total));
        let mut context = ClientContext {
            client: ClientId(0),
            state: &mut state,
            cancelled: &cancelled,
            progress: &mut progress,
        };
        trainer.train(&initial, &task, &mut context).unwrap();
        let expected: Vec<_> = [16, 32, 40, 56, 72, 80].map(|done| (done, 80)).into();
        assert_eq!(seen, expected);

        let mut batches = 0;
        let mut progress = |_, _| {
            batches += 1;
            cancelled.store(true, Ordering::Relaxed);
        };
        let mut context = ClientContext {
            client: ClientId(0),
            state: &mut state,
            cancelled: &cancelled,
            progress: &mut progress,
        };
        let stopped = trainer.train(&initial, &task, &mut context);
        assert_eq!(stopped, Err(TrainError::Cancelled));
        assert_eq!(batches, 1);
    }
}

#[test]
fn what_does_not_fit_is_a_typed_error() {
    for factory in factories() {
        let mut trainer = factory.trainer(&job("mlp")).unwrap();
        let initial = factory.initial(&job("mlp")).unwrap();

        let past_the_end = train(&mut *trainer, &initial, &task(1, 0, [5, 1442]));
        let expected = "example 1442 of 1442 training examples".to_string();
        assert_eq!(past_the_end, Err(TrainError::Task(expected)));

        let other = factory.initial(&job("tiny_cnn")).unwrap();
        let error = train(&mut *trainer, &other, &task(1, 0, [5])).unwrap_err();
        assert!(error.to_string().contains("bn1.bias"), "{error}");

        let mut wild = task(1, 0, 0..200);
        wild.training.lr = 1e30;
        let error = train(&mut *trainer, &initial, &wild).unwrap_err();
        assert!(matches!(error, TrainError::Model(_)), "{error}");
        assert!(train(&mut *trainer, &initial, &task(1, 0, 0..20)).is_ok());
    }
}

/// A regression with a module and data of its own: y = 2x - 1. Panics on example 13, as a bug in a user's code would.
struct Line;

impl Learner for Line {
    type Module = Linear;

    fn module(&self, device: &Device) -> Result<Linear, TrainError> {
        Ok(LinearConfig::new(1, 1).init(device))
    }

    fn examples(&self, _split: Split) -> usize {
        32
    }

    fn loss(&self, module: &Linear, batch: Minibatch<'_>) -> Result<BatchLoss, TrainError> {
        assert!(!batch.examples.contains(&13), "thirteen\nis not for me");
        let x: Vec<f32> = batch.examples.iter().map(|&at| at as f32 / 32.0).collect();
        let x = Tensor::<1>::from_floats(x.as_slice(), batch.device).reshape([-1, 1]);
        let error = module.forward(x.clone()) - (x * 2.0 - 1.0);
        Ok(BatchLoss {
            loss: error.square().mean(),
            correct: None,
        })
    }
}

#[test]
fn a_learner_of_ones_own_is_trained_and_its_panics_are_caught() {
    for factory in factories() {
        let factory = factory.with_learner("line", "points", Line);
        let job = JobDescription {
            dataset: "points".to_string(),
            ..job("line")
        };
        let mut trainer = factory.trainer(&job).unwrap();
        let initial = factory.initial(&job).unwrap();
        let panicked = train(&mut *trainer, &initial, &task(1, 0, 0..32));
        let text = "thirteen is not for me".to_string();
        assert_eq!(panicked, Err(TrainError::Panicked(text)));

        let mut task = task(1, 0, (0..32).filter(|&at| at != 13));
        task.training.local_epochs = 200.0;
        task.training.weight_decay = 0.0;
        let update = train(&mut *trainer, &initial, &task).unwrap();
        assert!((update.parameters.tensor("weight").unwrap()[0] - 2.0).abs() < 1e-2);
        assert!((update.parameters.tensor("bias").unwrap()[0] + 1.0).abs() < 1e-2);
        assert!(!update.metrics.contains_key("train_accuracy"));
        // Its share 1 of 3 has examples 10 to 20.
        assert!(matches!(
            evaluate(&mut *trainer, &initial, 1, 3),
            Err(TrainError::Panicked(_))
        ));
        let evaluation = evaluate(&mut *trainer, &update.parameters, 2, 3).unwrap();
        assert_eq!(evaluation.examples, 11);
        assert!(evaluation.loss < 1e-3 && evaluation.accuracy.is_none());
    }
}
