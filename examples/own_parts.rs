//! One part of each kind of your own, composed into a strategy and trained over HTTP: `cargo run --release --example own_parts`.
//!
//! A job names the parts as it names those of the crate. The client objective has two halves: the coordinator's tells workers what to
//! minimize, and the worker's changes the gradients. A worker that does not have the second half is never given the job.

use std::{collections::BTreeMap, error::Error, sync::Arc};

use fedavg::{
    BurnTrainers, Caller, Coordinator, DeviceSpec, JobSpec, Operator, Parameters, StrategySpec,
    Worker, WorkerConfig,
    coordinator::CoordinatorConfig,
    job::TrainingSettings,
    objective::Objective,
    report::{DELTA, ReportMetadata},
    strategy::{
        AggregateContext, BlockReducer, Catalogue, ClientInfo, ClientObjective, Cohort, Counted,
        LocalWork, NextVersion, Out, Parameter, PartInfo, Reducer, Reduction, RoundContext, Rows,
        Sampler, ServerOptimizer, StateSpec, StateTensor, StrategyError, Weighting,
    },
    transport::http::{
        ClientConfig, HttpTransport, RouterConfig, ServerConfig, listen, router, serve,
    },
    worker::{Correction, LocalObjective, TrainError, TrainTask},
};

/// A sampler: the clients with even numbers, then those with odd ones.
struct InTurns;

impl Sampler for InTurns {
    fn sample(&self, round: &RoundContext<'_>) -> Result<Cohort, StrategyError> {
        let clients = round.clients.iter().enumerate();
        let turn = clients.filter(|(_, client)| u64::from(client.id.0) % 2 == round.version.0 % 2);
        let places: Vec<usize> = turn.map(|(place, _)| place).collect();
        let goal = places.len();
        Ok(Cohort::at(round, places, goal))
    }
}

/// Local work: clients with little data train twice as long.
struct LongerIfSmall {
    small: u64,
}

impl LocalWork for LongerIfSmall {
    fn training(
        &self,
        client: &ClientInfo,
        training: &TrainingSettings,
    ) -> Option<TrainingSettings> {
        (client.examples < self.small).then(|| {
            let mut own = training.clone();
            own.local_epochs *= 2.0;
            own
        })
    }
}

/// A weighting: between `examples` and `uniform`.
struct Root;

impl Weighting for Root {
    fn weight(&self, report: &ReportMetadata) -> f64 {
        (report.examples as f64).sqrt()
    }
}

/// The coordinator's half of a client objective: the loss, and `strength / 2` times the squared norm of the weights.
struct Small {
    strength: f64,
}

impl ClientObjective for Small {
    fn objective(&self, _: &BTreeMap<String, f64>) -> Objective {
        let settings = [("strength".to_string(), self.strength.into())];
        Objective::Custom {
            name: "small".to_string(),
            settings: settings.into_iter().collect(),
        }
    }
}

/// The worker's half.
struct SmallLocally;

impl LocalObjective for SmallLocally {
    fn begin(
        &self,
        global: &Parameters,
        task: &TrainTask,
        _: &BTreeMap<String, Parameters>,
    ) -> Result<Correction, TrainError> {
        let Objective::Custom { settings, .. } = &task.objective else {
            return Err(TrainError::Task(
                "objective \"small\" needs its settings".to_string(),
            ));
        };
        let strength = settings
            .get("strength")
            .and_then(|value| value.as_f64())
            .unwrap_or(0.0);
        // strength * w, as a pull to the global model and a shift by that model.
        let mut shift = global.clone();
        for value in shift.values_mut() {
            *value *= strength as f32;
        }
        Ok(Correction::pull(strength).with_shift(shift))
    }
}

/// A reducer: half of the mean, half of the median.
struct Halfway;

impl Reducer for Halfway {
    fn reduce(
        &self,
        _: &AggregateContext<'_>,
        counted: Counted,
        _: &mut NextVersion<'_>,
    ) -> Result<Reduction, StrategyError> {
        Ok(Reduction::by(counted, Self))
    }
}

impl BlockReducer for Halfway {
    fn reduce(&self, rows: &Rows<'_>, update: &mut [f64], _: &mut Out<'_>) {
        rows.median(DELTA, update);
        for (value, mean) in update.iter_mut().zip(rows.mean(DELTA).iter()) {
            *value = f64::midpoint(*value, *mean);
        }
    }
}

/// A server optimizer: the sign of a moving mean (Lion without its weight decay).
struct Sign {
    lr: f64,
}

impl ServerOptimizer for Sign {
    fn state(&self) -> StateSpec {
        StateSpec::default().tensor(StateTensor::new("moving"))
    }

    fn step(&self, _: &AggregateContext<'_>, update: &[f64], out: &mut Out<'_>) {
        let (model, [moving]) = out.tensors(["moving"]);
        for (index, update) in update.iter().enumerate() {
            let mean = 0.9 * f64::from(moving[index]) + 0.1 * update;
            moving[index] = mean as f32;
            if mean != 0.0 {
                model[index] = (f64::from(model[index]) + self.lr * mean.signum()) as f32;
            }
        }
    }
}

fn catalogue() -> Catalogue {
    Catalogue::default()
        .with_sampler(
            PartInfo::new("in_turns", "even clients, then odd ones"),
            |_| Ok(InTurns),
        )
        .with_work(
            PartInfo::new(
                "longer_if_small",
                "clients with little data train twice as long",
            )
            .parameter(Parameter::at_least("small", 0.0, 100.0)),
            |values| {
                let small = values.number("small") as u64;
                Ok(LongerIfSmall { small })
            },
        )
        .with_weighting(
            PartInfo::new("root", "the root of the number of examples"),
            |_| Ok(Root),
        )
        .with_objective(
            PartInfo::new("small", "the loss, and the squared norm of the weights")
                .parameter(Parameter::at_least("strength", 0.0, 0.01)),
            |values| {
                let strength = values.number("strength");
                Ok(Small { strength })
            },
        )
        .with_reducer(
            PartInfo::new("halfway", "between the mean and the median"),
            |_| Ok(Halfway),
        )
        .with_optimizer(
            PartInfo::new("sign", "the sign of a moving mean").parameter(Parameter::above(
                "server_lr",
                0.0,
                0.003,
            )),
            |values| {
                let lr = values.number("server_lr");
                Ok(Sign { lr })
            },
        )
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let trainers = BurnTrainers::new(DeviceSpec::Cpu)?.with_objective("small", SmallLocally);
    let trainers = Arc::new(trainers);
    let coordinator = Coordinator::builder(trainers.clone())
        .config(CoordinatorConfig::open())
        .catalogue(catalogue())
        .start();
    let coordinator = Arc::new(coordinator);
    let listener = listen(([127, 0, 0, 1], 0).into(), true).await?;
    let url = format!("http://{}", listener.local_addr()?);
    let router = router(coordinator.clone(), RouterConfig::default());
    tokio::spawn(serve(
        listener,
        router,
        ServerConfig::default(),
        std::future::pending(),
    ));

    let mut job = JobSpec::new("mlp", "digits");
    job.clients = Some(8);
    job.rounds = 20;
    job.training.lr = 0.1;
    // In a job file: strategy = { kind = "fedavg", sampler = "in_turns", work = "longer_if_small", small = 200, ... }
    job.strategy = StrategySpec::preset("fedavg")
        .with("sampler", "in_turns")
        .with("work", "longer_if_small")
        .with("small", 200)
        .with("weighting", "root")
        .with("objective", "small")
        .with("strength", 0.001)
        .with("reducer", "halfway")
        .with("optimizer", "sign");
    let here = Caller::in_process();
    let job = coordinator.submit(&here, job, None).await?.job;

    let transport = HttpTransport::new(&url, ClientConfig::default())?;
    let worker = Worker::new(transport, trainers, WorkerConfig::new("over-http"));
    tokio::spawn(worker.run(std::future::pending()));
    let ended = coordinator.wait(&here, job).await?;
    println!("job {job}: {}, version {}", ended.phase, ended.version);
    let rounds = coordinator.rounds(&here, job, Default::default()).await?;
    let last = rounds.last().ok_or("no round")?;
    println!("clients of the last round: {:?}", last.folded);
    println!(
        "test accuracy {:.1} %",
        100.0 * last.test_accuracy.unwrap_or_default()
    );
    Ok(())
}
