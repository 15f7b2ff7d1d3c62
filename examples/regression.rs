//! A regression in plain Rust, without burn: `cargo run --release --example regression`.
//!
//! The coordinator and two workers are in one process. Four clients fit a line to a quarter of the examples each; whatever
//! trains, in any library, fits behind the same two traits. As a package of its own this needs `fedavg` without its default
//! features, and `tokio` with `macros` and `rt-multi-thread`.

use std::{error::Error, sync::Arc};

use fedavg::{
    Caller, Coordinator, InProcess, JobSpec, Layout, LocalTrainer, Operator, Parameters, Role,
    Worker, WorkerConfig,
    job::JobDescription,
    protocol::DatasetInfo,
    round::Evaluation,
    worker::{
        ClientContext, EvalTask, LocalUpdate, Partition, TrainError, TrainTask, TrainerFactory,
    },
};

const MODEL: &str = "line";
const DATASET: &str = "numbers";
/// How many examples there are to train on, and how many more to evaluate the model on.
const TRAINED: u32 = 2000;
const TESTED: u32 = 500;

/// An example: `y = 2 a - b + 0.5 c + 1`, with numbers from -1 to 1 that follow from its index.
fn example(index: u32) -> ([f32; 3], f32) {
    let mut x = [0.0; 3];
    for (place, value) in x.iter_mut().enumerate() {
        let drawn = (index * 3 + place as u32).wrapping_mul(2_654_435_761) >> 16;
        *value = drawn as f32 / 32_768.0 - 1.0;
    }
    (x, 2.0 * x[0] - x[1] + 0.5 * x[2] + 1.0)
}

/// What the model says, less what is right. Its values are in the order of its layout: `bias`, then `weight`.
fn error(model: &[f32], index: u32) -> (f32, [f32; 4]) {
    let (x, y) = example(index);
    let slopes = [1.0, x[0], x[1], x[2]];
    let mut said = 0.0;
    for (value, slope) in model.iter().zip(slopes) {
        said += value * slope;
    }
    (said - y, slopes)
}

/// Makes the trainers, and knows the model and the data.
#[derive(Debug)]
pub struct Regression;

impl TrainerFactory for Regression {
    fn trainer(&self, _: &JobDescription) -> Result<Box<dyn LocalTrainer>, TrainError> {
        Ok(Box::new(Self))
    }

    fn initial(&self, _: &JobDescription) -> Result<Parameters, TrainError> {
        let tensors = [
            ("bias".to_string(), vec![1], Role::Trainable),
            ("weight".to_string(), vec![3], Role::Trainable),
        ];
        let layout = Layout::new(tensors).map_err(|error| TrainError::Model(error.to_string()))?;
        Ok(Parameters::zeros(layout))
    }

    fn dataset(&self, name: &str) -> Result<DatasetInfo, TrainError> {
        if name == DATASET {
            let (trained, tested) = (u64::from(TRAINED), u64::from(TESTED));
            return Ok(DatasetInfo::new(DATASET, "numbers-1", trained, tested));
        }
        Err(TrainError::UnknownDataset {
            name: name.to_string(),
            reason: format!("only {DATASET:?} is here").into(),
        })
    }

    fn labels(&self, _: &str) -> Result<Arc<[u16]>, TrainError> {
        // There are no classes: all are of one, so that `iid` deals them.
        Ok(vec![0; TRAINED as usize].into())
    }

    fn datasets(&self) -> Vec<DatasetInfo> {
        self.dataset(DATASET).into_iter().collect()
    }
}

impl LocalTrainer for Regression {
    fn train(
        &mut self,
        global: &Parameters,
        task: &TrainTask,
        context: &mut ClientContext<'_>,
    ) -> Result<LocalUpdate, TrainError> {
        let Partition::Indices(indices) = &task.partition else {
            return Err(TrainError::Task(
                "this worker has no data of its own".into(),
            ));
        };
        let mut local = global.clone();
        let (mut loss, rate) = (0.0, task.training.lr as f32);
        for &index in indices.iter() {
            if context.is_cancelled() {
                return Err(TrainError::Cancelled);
            }
            let (error, slopes) = error(local.values(), index);
            loss += f64::from(error * error);
            for (value, slope) in local.values_mut().iter_mut().zip(slopes) {
                *value -= rate * error * slope;
            }
        }
        let mut update = LocalUpdate::new(local, indices.len() as u64);
        update.steps = indices.len() as u64;
        let mean = loss / indices.len() as f64;
        update.metrics.insert("train_loss".to_string(), mean);
        Ok(update)
    }

    fn evaluate(
        &mut self,
        global: &Parameters,
        task: &EvalTask,
        _: &mut ClientContext<'_>,
    ) -> Result<Evaluation, TrainError> {
        let share = task.examples(TESTED)?;
        let (mut squares, mut distances, count) = (0.0, 0.0, share.len() as f64);
        for index in share.clone() {
            let (error, _) = error(global.values(), TRAINED + index);
            squares += f64::from(error * error);
            distances += f64::from(error.abs());
        }
        let evaluation = Evaluation::new(squares / count, share.len() as u64);
        Ok(evaluation.with_metric("mean_distance", distances / count))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let trainers = Arc::new(Regression);
    let coordinator = Arc::new(Coordinator::builder(trainers.clone()).start());
    for name in ["one", "two"] {
        let transport = InProcess::new(coordinator.clone());
        let worker = Worker::new(transport, trainers.clone(), WorkerConfig::new(name));
        tokio::spawn(worker.run(std::future::pending()));
    }
    let mut job = JobSpec::new(MODEL, DATASET);
    job.clients = Some(4);
    job.rounds = 8;
    job.training.lr = 0.01;

    // Another program asks the same of a coordinator behind HTTP: `transport::http::OperatorClient` is an `Operator`, too.
    let here = Caller::in_process();
    let job = coordinator.submit(&here, job, None).await?.job;
    let ended = coordinator.wait(&here, job).await?;
    for round in coordinator.rounds(&here, job, Default::default()).await? {
        let distance = round.test_metrics.get("mean_distance").copied();
        println!("round {}: mean distance {distance:?}", round.round);
    }
    let model = coordinator.model(&here, job, None).await?;
    println!(
        "{}: weight {:?}, bias {:?}; right are [2, -1, 0.5] and [1]",
        ended.phase,
        model.tensor("weight").unwrap_or_default(),
        model.tensor("bias").unwrap_or_default()
    );
    Ok(())
}
