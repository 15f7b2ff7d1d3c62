//! Optimizers, clipping, smoothing, steps and objectives, against what `scripts/local_training_fixtures.py` writes down from
//! their definitions.

use std::sync::LazyLock;

use burn::tensor::TensorData;
use serde_json::Value;

use super::*;
use crate::{
    job::InnerState,
    objective::Objective,
    parameters::{DType, PayloadSpec, Roles},
    worker::{Correction, LocalObjective, Trained},
};

type State = BTreeMap<String, Parameters>;

static TRUTH: LazyLock<Value> = LazyLock::new(|| {
    let text = include_str!("../../../../tests/fixtures/local_training.json");
    serde_json::from_str(text).unwrap()
});

fn numbers(value: &Value) -> Vec<f32> {
    let values = value.as_array().unwrap().iter();
    values.map(|value| value.as_f64().unwrap() as f32).collect()
}

/// A model of the fixture on the learner's layout.
fn model(value: &Value, layout: &Arc<Layout>) -> Parameters {
    let mut model = Parameters::zeros(layout.clone());
    for spec in layout.tensors() {
        model.values_mut()[spec.range()].copy_from_slice(&numbers(&value[&spec.name]));
    }
    model
}

/// y = W x + b on the fixture's examples, whose order does not matter.
struct Regression;

impl Learner for Regression {
    type Module = Linear;

    fn module(&self, device: &Device) -> Result<Linear, TrainError> {
        Ok(LinearConfig::new(3, 2).init(device))
    }

    fn examples(&self, _split: Split) -> usize {
        6
    }

    fn loss(&self, module: &Linear, batch: Minibatch<'_>) -> Result<BatchLoss, TrainError> {
        let mut examples = batch.examples.to_vec();
        // So that the same examples give the same bits in whatever order they come.
        examples.sort_unstable();
        let rows = |name: &str, width: usize| {
            let all = numbers(&TRUTH[name]);
            let picked: Vec<f32> = examples
                .iter()
                .flat_map(|&at| all[at as usize * width..][..width].to_vec())
                .collect();
            let data = TensorData::new(picked, [examples.len(), width]);
            Tensor::<2>::from_data(data, batch.device)
        };
        let error = module.forward(rows("x", 3)) - rows("y", 2);
        Ok(BatchLoss {
            loss: error.square().mean(),
            correct: None,
        })
    }
}

struct Bench {
    trainer: Box<dyn LocalTrainer>,
    layout: Arc<Layout>,
    state: State,
}

impl Bench {
    /// One for every CPU device that is compiled in.
    fn all() -> Vec<Self> {
        let with_own = factories().into_iter().map(|factory| {
            factory
                .with_learner("regression", "six", Regression)
                .with_objective("reversed", Reversed)
        });
        with_own
            .map(|factory| {
                let job = JobDescription {
                    dataset: "six".to_string(),
                    ..job("regression")
                };
                Self {
                    layout: factory.initial(&job).unwrap().layout().clone(),
                    trainer: factory.trainer(&job).unwrap(),
                    state: State::new(),
                }
            })
            .collect()
    }

    fn start(&self) -> Parameters {
        model(&TRUTH["start"], &self.layout)
    }

    fn train(&mut self, global: &Parameters, task: &TrainTask) -> Result<LocalUpdate, TrainError> {
        let cancelled = AtomicBool::new(false);
        self.trainer.train(
            global,
            task,
            &mut ClientContext {
                client: task.client,
                state: &mut self.state,
                cancelled: &cancelled,
                progress: &mut |_, _| {},
            },
        )
    }

    /// As the fixture trains: ten steps on all examples.
    fn ends_at(&mut self, change: impl FnOnce(&mut TrainTask), expected: &str) {
        let mut task = ten_steps();
        change(&mut task);
        let update = self.train(&self.start(), &task).unwrap();
        assert_eq!(update.steps, 10);
        let expected = model(&TRUTH[expected], &self.layout);
        is_close(&update.parameters, &expected);
    }
}

/// Plain SGD.
fn ten_steps() -> TrainTask {
    let mut task = TrainTask::new(RoundId(1), ClientId(0), Partition::Everything);
    task.training.local_steps = Some(10);
    task.training.batch_size = 6;
    task.training.lr = 0.1;
    task.training.momentum = 0.0;
    task.training.weight_decay = 0.0;
    task
}

fn is_close(found: &Parameters, expected: &Parameters) {
    for spec in expected.layout().tensors() {
        let (found, expected) = (
            found.tensor(&spec.name).unwrap(),
            expected.tensor(&spec.name).unwrap(),
        );
        let largest = expected
            .iter()
            .fold(0.0_f32, |most, value| most.max(value.abs()));
        let difference = distance(found, expected) / largest;
        assert!(
            difference < 1e-6,
            "{}: {found:?} is not {expected:?}",
            spec.name
        );
    }
}

#[test]
fn optimizers_and_clipping_end_where_their_definitions_do() {
    for mut bench in Bench::all() {
        bench.ends_at(|_| {}, "sgd");
        bench.ends_at(
            |task| {
                task.training.momentum = 0.9;
                task.training.weight_decay = 0.01;
                task.training.nesterov = true;
            },
            "nesterov",
        );
        for (optimizer, name) in [
            (OptimizerKind::Adam, "adam"),
            (OptimizerKind::AdamW, "adamw"),
        ] {
            bench.ends_at(
                |task| {
                    task.training.optimizer = optimizer;
                    task.training.lr = 0.01;
                    task.training.weight_decay = 0.05;
                },
                name,
            );
        }
        bench.ends_at(
            |task| {
                task.training.momentum = 0.9;
                task.training.weight_decay = 0.01;
                task.training.clip_norm = Some(0.5);
            },
            "clipped",
        );
        // A bound that is never reached changes no bit.
        let plain = bench.train(&bench.start(), &ten_steps()).unwrap();
        let mut wide = ten_steps();
        wide.training.clip_norm = Some(1e6);
        assert_eq!(bench.train(&bench.start(), &wide).unwrap(), plain);
    }
}

#[test]
fn a_proximal_client_ends_where_fedprox_does_and_without_mu_where_a_plain_one_does() {
    for mut bench in Bench::all() {
        let objective = Objective::Proximal { mu: 0.5 };
        bench.ends_at(|task| task.objective = objective, "proximal");
        // The correction is in the gradient that is clipped.
        bench.ends_at(
            |task| {
                task.objective = Objective::Proximal { mu: 2.0 };
                task.training.clip_norm = Some(0.5);
            },
            "proximal_clipped",
        );
        let plain = bench.train(&bench.start(), &ten_steps()).unwrap();
        let mut task = ten_steps();
        task.objective = Objective::Proximal { mu: 0.0 };
        assert_eq!(bench.train(&bench.start(), &task).unwrap(), plain);
    }
}

fn scaffold(server: Parameters) -> TrainTask {
    let mut task = ten_steps();
    task.objective = Objective::Scaffold { restarts: 0 };
    let control = Arc::new(server);
    task.payloads.insert("control".to_string(), control);
    task
}

#[test]
fn two_rounds_of_scaffold_are_those_of_the_paper() {
    for mut bench in Bench::all() {
        for (name, momentum) in [("scaffold", 0.0), ("scaffold_momentum", 0.9)] {
            bench.state.clear();
            for round in TRUTH[name].as_array().unwrap() {
                let of = |name: &str| model(&round[name], &bench.layout);
                let (start, expected) = (of("start"), [of("model"), of("own"), of("change")]);
                let mut task = scaffold(of("server"));
                task.training.momentum = momentum;
                let mut update = bench.train(&start, &task).unwrap();
                is_close(&update.parameters, &expected[0]);
                is_close(&bench.state["control"], &expected[1]);
                let Some(PayloadValues::Model(change)) = update.payloads.remove("control") else {
                    panic!("no control in the report");
                };
                is_close(&change, &expected[2]);
            }
        }
        // Without any control, the first round is plain.
        bench.state.clear();
        let plain = bench.train(&bench.start(), &ten_steps()).unwrap();
        let zeros = Parameters::zeros(bench.layout.clone());
        let update = bench.train(&bench.start(), &scaffold(zeros)).unwrap();
        assert_eq!(update.parameters, plain.parameters);
        assert_eq!(update.metrics, plain.metrics);
    }
}

#[test]
fn two_rounds_of_feddyn_are_those_of_the_paper() {
    for mut bench in Bench::all() {
        for round in TRUTH["feddyn"].as_array().unwrap() {
            let of = |name: &str| model(&round[name], &bench.layout);
            let (start, expected) = (of("start"), [of("model"), of("own")]);
            let mut task = ten_steps();
            task.objective = Objective::FedDyn {
                alpha: 0.5,
                restarts: 0,
            };
            let update = bench.train(&start, &task).unwrap();
            is_close(&update.parameters, &expected[0]);
            is_close(&bench.state["feddyn.gradient"], &expected[1]);
        }
    }
}

#[test]
fn the_loss_before_is_that_of_the_global_model() {
    for mut bench in Bench::all() {
        let plain = bench.train(&bench.start(), &ten_steps()).unwrap();
        assert!(plain.payloads.is_empty());
        let mut task = ten_steps();
        task.expects = vec![PayloadSpec::vector("loss_before", 1, DType::F64)];
        let mut update = bench.train(&bench.start(), &task).unwrap();
        let payload = update.payloads.remove("loss_before");
        let Some(PayloadValues::Values(Values::F64(values))) = payload else {
            panic!("{payload:?}");
        };
        let expected = TRUTH["loss_before"].as_f64().unwrap();
        assert_eq!(values.len(), 1);
        assert!((values[0] / expected - 1.0).abs() < 1e-6, "{values:?}");
        // To measure it moves nothing.
        assert_eq!(update.parameters, plain.parameters);
    }
}

#[test]
fn smoothed_labels_are_pytorchs() {
    let truth = &TRUTH["smoothing"];
    for (name, device) in crate::model::testing::devices() {
        let device = device.autodiff();
        let logits = TensorData::new(numbers(&truth["logits"]), [4, 3]);
        let logits = Tensor::<2>::from_data(logits, &device).require_grad();
        let labels: Vec<i32> = serde_json::from_value(truth["labels"].clone()).unwrap();
        let labels = Tensor::<1, Int>::from_data(TensorData::new(labels, [4]), &device);
        let share = truth["share"].as_f64().unwrap();
        let batch = BatchLoss::smoothed_cross_entropy(logits.clone(), labels, share);
        let loss = batch.loss.clone().into_scalar::<f32>();
        let expected = truth["loss"].as_f64().unwrap();
        assert!(
            (f64::from(loss) / expected - 1.0).abs() < 1e-6,
            "{name}: {loss}"
        );
        let gradient = logits.grad(&batch.loss.backward()).unwrap();
        let gradient = gradient.into_data().try_into_vec::<f32>().unwrap();
        assert!(
            distance(&gradient, &numbers(&truth["gradient"])) < 1e-6,
            "{name}"
        );
    }
}

#[test]
fn training_loss_is_smoothed_and_evaluations_are_not() {
    for factory in factories() {
        let mut trainer = factory.trainer(&job("mlp")).unwrap();
        let initial = factory.initial(&job("mlp")).unwrap();
        let mut task = task(1, 0, 0..200);
        task.training.local_epochs = 10.0;
        let sharp = train(&mut *trainer, &initial, &task).unwrap();
        task.training.label_smoothing = 0.5;
        let smooth = train(&mut *trainer, &initial, &task).unwrap();
        // The least that half a smoothed target allows is far above what this training reaches without.
        assert!(sharp.metrics["train_loss"] < 0.8, "{:?}", sharp.metrics);
        assert!(smooth.metrics["train_loss"] > 1.2, "{:?}", smooth.metrics);
        let loss = evaluate(&mut *trainer, &smooth.parameters, 0, 1)
            .unwrap()
            .loss;
        assert!(loss < 1.2, "{loss}");
    }
}

#[test]
fn steps_of_one_pass_are_one_epoch_and_a_half_epoch_is_its_first_half() {
    for factory in factories() {
        let mut trainer = factory.trainer(&job("tiny_cnn")).unwrap();
        let initial = factory.initial(&job("tiny_cnn")).unwrap();
        let mut run = |change: &dyn Fn(&mut TrainingSettings)| {
            // 40 examples in batches of 16, 16 and 8.
            let mut task = task(1, 0, 0..40);
            change(&mut task.training);
            train(&mut *trainer, &initial, &task).unwrap()
        };
        let one = run(&|_| {});
        assert_eq!(run(&|training| training.local_steps = Some(3)), one);
        let two = run(&|training| training.local_epochs = 2.0);
        assert_eq!(run(&|training| training.local_steps = Some(6)), two);
        let half = run(&|training| training.local_epochs = 1.0 + 32.0 / 40.0);
        assert_eq!(half, run(&|training| training.local_steps = Some(5)));
        assert_eq!((one.steps, half.steps), (3, 5));
        let little = run(&|training| training.local_epochs = 1e-9);
        assert_eq!(little.steps, 1);
        assert_ne!(half.parameters, two.parameters);
    }
}

/// The client's own model is the next global one.
#[test]
fn two_rounds_with_kept_state_are_one_round_of_twice_the_steps() {
    for mut bench in Bench::all() {
        for (optimizer, momentum) in [
            (OptimizerKind::AdamW, 0.0),
            (OptimizerKind::Adam, 0.0),
            (OptimizerKind::Sgd, 0.9),
        ] {
            bench.state.clear();
            let mut task = ten_steps();
            task.training.optimizer = optimizer;
            task.training.momentum = momentum;
            task.training.local_steps = Some(20);
            let whole = bench.train(&bench.start(), &task).unwrap();
            assert!(bench.state.is_empty(), "new is the default");

            task.training.local_steps = Some(10);
            let lost = {
                let first = bench.train(&bench.start(), &task).unwrap();
                bench.train(&first.parameters, &task).unwrap()
            };
            task.training.inner_state = InnerState::Keep;
            let first = bench.train(&bench.start(), &task).unwrap();
            assert!(!bench.state.is_empty());
            task.round = RoundId(2);
            let kept = bench.state.clone();
            let second = bench.train(&first.parameters, &task).unwrap();
            assert_eq!(second.parameters, whole.parameters, "{optimizer:?}");
            assert_ne!(second.parameters, lost.parameters, "{optimizer:?}");

            // Without the state it starts from nothing, and so it does with another optimizer's.
            bench.state.clear();
            let without = bench.train(&first.parameters, &task).unwrap();
            assert_eq!(without.parameters, lost.parameters);
            bench.state = kept;
            task.training.optimizer = match optimizer {
                OptimizerKind::Sgd => OptimizerKind::Adam,
                _ => OptimizerKind::Sgd,
            };
            bench.train(&first.parameters, &task).unwrap();
            task.training.inner_state = InnerState::New;
            bench.train(&first.parameters, &task).unwrap();
            assert!(
                bench.state.is_empty(),
                "nothing is left of a state that is not kept"
            );
        }
    }
}

/// Adds a step against the global model: with custom settings, a state and a payload.
struct Reversed;

impl LocalObjective for Reversed {
    fn begin(
        &self,
        global: &Parameters,
        task: &TrainTask,
        _state: &State,
    ) -> Result<Correction, TrainError> {
        let Objective::Custom { settings, .. } = &task.objective else {
            return Err(TrainError::Task("not mine".to_string()));
        };
        let factor = settings["factor"].as_f64().unwrap_or_default() as f32;
        let mut shift = global.clone();
        shift
            .values_mut()
            .iter_mut()
            .for_each(|value| *value *= factor);
        Ok(Correction::none().with_shift(shift))
    }

    fn end(
        &self,
        trained: &Trained<'_>,
        state: &mut State,
    ) -> Result<BTreeMap<String, PayloadValues>, TrainError> {
        state.insert("reversed".to_string(), trained.local.clone());
        let steps = PayloadValues::Values(Values::U64(vec![trained.steps]));
        Ok(BTreeMap::from([("steps".to_string(), steps)]))
    }
}

#[test]
fn an_objective_of_ones_own_changes_gradients_state_and_report() {
    for mut bench in Bench::all() {
        let with_factor = |factor: f64| {
            let mut task = ten_steps();
            task.training.local_steps = Some(1);
            let settings = [("factor".to_string(), factor.into())];
            task.objective = Objective::Custom {
                name: "reversed".to_string(),
                settings: settings.into_iter().collect(),
            };
            task
        };
        let start = bench.start();
        let plain = bench.train(&start, &with_factor(0.0)).unwrap();
        let moved = bench.train(&start, &with_factor(0.5)).unwrap();
        let rows = start.values().iter().zip(plain.parameters.values());
        for ((start, plain), moved) in rows.zip(moved.parameters.values()) {
            // One step of SGD at a rate of 0.1.
            let expected = plain - 0.1 * 0.5 * start;
            assert!((moved - expected).abs() < 1e-6, "{moved} is not {expected}");
        }
        let steps = PayloadValues::Values(Values::U64(vec![1]));
        assert_eq!(moved.payloads["steps"], steps);
        assert_eq!(bench.state["reversed"], moved.parameters);
    }
}

#[test]
fn what_a_task_can_not_be_is_a_typed_error() {
    for mut bench in Bench::all() {
        type Change = fn(&mut TrainTask);
        let changes: [(&str, Change); 6] = [
            ("local_epochs", |task| task.training.local_epochs = f64::NAN),
            ("batch_size", |task| task.training.batch_size = 0),
            ("clip_norm", |task| task.training.clip_norm = Some(-1.0)),
            ("label_smoothing", |task| {
                task.training.label_smoothing = 2.0
            }),
            ("objective.mu", |task| {
                task.objective = Objective::Proximal { mu: f64::NAN };
            }),
            ("elastic", |task| {
                task.objective = Objective::Custom {
                    name: "elastic".to_string(),
                    settings: Default::default(),
                };
            }),
        ];
        for (name, change) in changes {
            let mut task = ten_steps();
            change(&mut task);
            let error = bench.train(&bench.start(), &task).unwrap_err();
            assert!(matches!(error, TrainError::Task(_)), "{error:?}");
            assert!(error.to_string().contains(name), "{error}");
        }
        // No example, whatever is asked for: no step, and no loop without an end.
        let mut task = scaffold(bench.start());
        task.partition = Partition::Indices(Arc::new([]));
        task.expects = vec![
            PayloadSpec::vector("loss_before", 1, DType::F64),
            PayloadSpec::model("control", Roles::TRAINABLE),
        ];
        let update = bench.train(&bench.start(), &task).unwrap();
        assert_eq!((update.steps, &update.parameters), (0, &bench.start()));
    }
}

#[test]
fn images_are_scaled_as_the_job_says_in_training_and_in_evaluation() {
    for factory in factories() {
        let plain_job = {
            let mut job = job("mlp");
            job.training.normalize = crate::job::Normalize::None;
            job
        };
        let initial = factory.initial(&job("mlp")).unwrap();
        let mut usual = factory.trainer(&job("mlp")).unwrap();
        let mut plain = factory.trainer(&plain_job).unwrap();
        let by = |trainer: &mut Box<dyn LocalTrainer>| {
            evaluate(&mut **trainer, &initial, 0, 1).unwrap().loss
        };
        assert_ne!(by(&mut usual), by(&mut plain));
        let task = task(1, 0, 0..32);
        let usual = train(&mut *usual, &initial, &task).unwrap();
        let plain = train(&mut *plain, &initial, &task).unwrap();
        assert_ne!(usual.parameters, plain.parameters);
    }
}

#[test]
fn a_reflected_crop_is_another_image() {
    for factory in factories() {
        let factory = factory.with_dataset("varied", varied_digits());
        let job = JobDescription {
            dataset: "varied".to_string(),
            ..job("mlp")
        };
        let initial = factory.initial(&job).unwrap();
        let mut trainer = factory.trainer(&job).unwrap();
        let mut with = |augment| {
            let mut task = task(1, 0, 0..40);
            task.training.augment = augment;
            train(&mut *trainer, &initial, &task).unwrap().parameters
        };
        let (zeros, reflect) = (with(Augment::Zeros), with(Augment::Reflect));
        assert_ne!(zeros, reflect);
        assert_eq!(reflect, with(Augment::Reflect));
    }
}
