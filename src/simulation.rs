//! A coordinator and many clients in one process: the same coordinator, round machine, worker loop and strategy as over
//! a network, joined by the in-process transport.

use std::{
    fmt,
    future::Future,
    io,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use thiserror::Error;
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use crate::{
    coordinator::{Coordinator, CoordinatorConfig, StrategyFactory, strategy_factory},
    ids::{JobId, RoundId},
    job::{JobSpec, Settings, StrategySpec},
    parameters::{Digest, Parameters},
    protocol::{JobSummary, LoggedEvent, RoundRecord},
    report::Refusal,
    round::{JobEvent, Outcome},
    strategy::{FederatedStrategy, Replay, StrategyError},
    transport::{Caller, InProcess, Operator, OperatorError},
    worker::{TrainError, TrainerFactory, Worker, WorkerConfig, WorkerError, WorkerTotals},
};

/// The name under which the run's own strategy is registered. Results have the strategy's real name instead.
const STRATEGY: &str = "simulation";

type Observer = Box<dyn FnMut(&LoggedEvent) + Send>;

/// A run to be made.
pub struct Simulation {
    spec: JobSpec,
    trainers: Arc<dyn TrainerFactory>,
    workers: usize,
    config: CoordinatorConfig,
    initial: Option<Parameters>,
    strategy: Option<OwnStrategy>,
    replay: Option<Vec<RoundRecord>>,
    observer: Option<Observer>,
    checkpoints: Option<Checkpoints>,
    expected_initial: Option<Digest>,
}

/// A strategy of an embedder's own.
struct OwnStrategy {
    name: String,
    factory: StrategyFactory,
}

/// Saves what there is of a run from time to time.
struct Checkpoints {
    every: Duration,
    save: Arc<Mutex<dyn FnMut(SimulationResult) + Send>>,
    last: Instant,
    saving: Option<JoinHandle<()>>,
}

impl fmt::Debug for Simulation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Simulation")
            .field("spec", &self.spec)
            .field("workers", &self.workers)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// What a run left behind.
#[derive(Clone)]
#[non_exhaustive]
pub struct SimulationResult {
    /// The job, ended. Its specification is what was asked for.
    pub job: JobSummary,
    /// The record of each round, in order.
    pub rounds: Vec<RoundRecord>,
    /// The event log.
    pub log: Vec<LoggedEvent>,
    /// The global model after the last commit.
    pub model: Arc<Parameters>,
}

impl fmt::Debug for SimulationResult {
    /// A line: the log and the model would be megabytes in a program that returns an error from `main`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SimulationResult")
            .field("outcome", &self.job.outcome)
            .field("version", &self.job.version)
            .field("rounds", &self.rounds.len())
            .finish_non_exhaustive()
    }
}

impl Simulation {
    /// A run of this job with one worker.
    pub fn new(spec: JobSpec, trainers: Arc<dyn TrainerFactory>) -> Self {
        Self {
            spec,
            trainers,
            workers: 1,
            config: CoordinatorConfig::default(),
            initial: None,
            strategy: None,
            replay: None,
            observer: None,
            checkpoints: None,
            expected_initial: None,
        }
    }

    /// How many clients train at once; at least 1.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers.max(1);
        self
    }

    /// Limits other than the coordinator's defaults.
    pub fn config(mut self, config: CoordinatorConfig) -> Self {
        self.config = config;
        self
    }

    /// Begins with this model instead of one drawn from the seed.
    pub fn initial(mut self, initial: Parameters) -> Self {
        self.initial = Some(initial);
        self
    }

    /// Uses this strategy, whatever the job names: `make` is the same kind of factory that
    /// [`CoordinatorBuilder::strategy`](crate::coordinator::CoordinatorBuilder::strategy) takes. If the job names no custom
    /// strategy, the results have the name of the type `S`.
    pub fn strategy<S: FederatedStrategy + 'static>(
        mut self,
        make: impl Fn(&JobSpec, &Settings) -> Result<S, StrategyError> + Send + Sync + 'static,
    ) -> Self {
        let path = std::any::type_name::<S>();
        // Without the path and the type's parameters: `median::Median<f32>` is `Median`.
        let path = path.split('<').next().unwrap_or(path);
        let name = path.rsplit("::").next().unwrap_or(path).to_string();
        let factory = strategy_factory(make);
        self.strategy = Some(OwnStrategy { name, factory });
        self
    }

    /// Repeats a recorded run: each round accepts the reports that its record names.
    pub fn replay(mut self, rounds: Vec<RoundRecord>) -> Self {
        self.replay = Some(rounds);
        self
    }

    /// Told of each entry of the event log as it is made.
    pub fn observer(mut self, observer: impl FnMut(&LoggedEvent) + Send + 'static) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    /// Gives `save` what there is of the run, about every so often while rounds are committed, on a thread of its own.
    /// A save that takes longer delays the next one, not the rounds.
    pub fn checkpoints(
        mut self,
        every: Duration,
        save: impl FnMut(SimulationResult) + Send + 'static,
    ) -> Self {
        self.checkpoints = Some(Checkpoints {
            every,
            save: Arc::new(Mutex::new(save)),
            last: Instant::now(),
            saving: None,
        });
        self
    }

    /// Fails at once, with [`SimulationError::Replay`], if the initial model is not the one with this digest
    /// ([`JobSummary::initial_digest`]).
    pub fn expect_initial(mut self, digest: Digest) -> Self {
        self.expected_initial = Some(digest);
        self
    }

    /// Makes the run, on a runtime of its own.
    ///
    /// # Errors
    ///
    /// [`SimulationError`]; a job that failed is one of them.
    ///
    /// # Panics
    ///
    /// Inside of a tokio runtime: there, await [`Simulation::run_until`].
    pub fn run(self) -> Result<SimulationResult, SimulationError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_time()
            .build()
            .map_err(SimulationError::Runtime)?;
        let result = runtime.block_on(self.run_until(std::future::pending()));
        // What computes has ended, or does not look at its flag: waiting longer is of no use.
        runtime.shutdown_background();
        result
    }

    /// Makes the run on the tokio runtime that this is called in; `cancelled` ends the job.
    ///
    /// However the run ends, its trainings and evaluations are told to stop, and this waits for them before it returns
    /// (at most [`WorkerConfig::stop_timeout`], for a trainer that does not look at
    /// [`ClientContext::is_cancelled`](crate::worker::ClientContext::is_cancelled)). If this future is dropped, they are told
    /// to stop, too, and end soon after.
    ///
    /// # Errors
    ///
    /// As [`Simulation::run`].
    pub async fn run_until(
        mut self,
        cancelled: impl Future<Output = ()>,
    ) -> Result<SimulationResult, SimulationError> {
        let asked = self.asked();
        self.install_strategy()?;
        if self.spec.partition.is_local() {
            return Err(SimulationError::LocalData);
        }
        // All of them, or the first round would be dealt to the workers that registered first.
        self.spec.limits.min_workers = self.workers as u32;
        self.check_dataset().await?;
        let mut builder = Coordinator::builder(self.trainers.clone()).config(self.config.clone());
        if let Some(OwnStrategy { factory, .. }) = self.strategy.take() {
            builder = builder.strategy(STRATEGY, move |job, settings| factory(job, settings));
        }
        let coordinator = builder.start();
        let mut workers = Workers::default();
        let result = self
            .follow(asked, &coordinator, &mut workers, cancelled)
            .await;
        // Workers first: they still report to the coordinator what they stopped.
        workers.stop().await;
        coordinator.stop(WorkerConfig::default().stop_timeout).await;
        result
    }

    /// Submits the job, and follows it to its end.
    async fn follow(
        mut self,
        asked: JobSpec,
        coordinator: &Coordinator,
        workers: &mut Workers,
        cancelled: impl Future<Output = ()>,
    ) -> Result<SimulationResult, SimulationError> {
        let here = Caller::in_process();
        let initial = self.initial.take().map(Arc::new);
        let submitted = coordinator.submit(&here, self.spec, initial).await?;
        let (job, found) = (submitted.job, submitted.initial_digest);
        if let Some(expected) = self.expected_initial
            && found != Some(expected)
        {
            return Err(SimulationError::Replay(format!(
                "the initial model is another one than the recorded run's (digest {expected}): give the same with \
                 --initial, and the same seed"
            )));
        }
        workers.start(self.workers, coordinator, &self.trainers);

        let mut events = coordinator.events(&here, job, 0).await?;
        let mut cancelled = pin!(cancelled);
        let mut asked_to_cancel = false;
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(event) => {
                        let event = event?;
                        if let Some(observer) = &mut self.observer {
                            observer(&event);
                        }
                        if let JobEvent::WorkerPassedOver { lacks, .. } = &event.event {
                            // All workers are alike, and no other will come.
                            let lacks = lacks.clone();
                            return Err(SimulationError::Unsuited { lacks });
                        }
                        if let Some(checkpoints) = &mut self.checkpoints
                            && checkpoints.is_due(&event)
                        {
                            checkpoints.save(collect(coordinator, job, &asked).await?);
                        }
                    }
                    None => break,
                },
                () = &mut cancelled, if !asked_to_cancel => {
                    asked_to_cancel = true;
                    // A refusal means that the job has just ended by itself.
                    let _ = coordinator.cancel(&here, job).await;
                }
                error = workers.failed() => return Err(SimulationError::Worker(error)),
            }
        }
        if let Some(Checkpoints {
            saving: Some(saving),
            ..
        }) = self.checkpoints
        {
            // Whoever saves must be done before the end is saved.
            let _ = saving.await;
        }
        let result = collect(coordinator, job, &asked).await?;
        if let Some(Outcome::Failed { reason }) = &result.job.outcome {
            let reason = reason.clone();
            let result = Box::new(result);
            return Err(SimulationError::Failed { reason, result });
        }
        Ok(result)
    }

    /// Whether the dataset is here: the workers are in this process, so that nobody else will bring it.
    async fn check_dataset(&self) -> Result<(), SimulationError> {
        let (trainers, name) = (self.trainers.clone(), self.spec.dataset.clone());
        let found = tokio::task::spawn_blocking(move || trainers.dataset(&name).map(drop)).await;
        match found {
            Ok(found) => found.map_err(SimulationError::Dataset),
            Err(error) => Err(SimulationError::Runtime(io::Error::other(error))),
        }
    }

    /// The job as it was asked for, with the name of the strategy that it runs.
    fn asked(&self) -> JobSpec {
        let mut asked = self.spec.clone();
        let is_custom = matches!(asked.strategy, StrategySpec::Custom { .. });
        if let Some(own) = &self.strategy
            && !is_custom
        {
            asked.strategy = StrategySpec::Custom {
                name: own.name.clone(),
                settings: Settings::new(),
            };
        }
        asked
    }

    /// Registers the run's own strategy, and the replay around it, under a name that the job then asks for.
    fn install_strategy(&mut self) -> Result<(), SimulationError> {
        if let Some(records) = self.replay.take() {
            if self.spec.partition.is_measured() {
                return Err(SimulationError::MeasuredPartition);
            }
            check_records(&records, self.spec.first_round)?;
            let committed = records
                .iter()
                .filter(|record| record.version.is_some())
                .count();
            // A record of a run that was cut short ends earlier than its job.
            self.spec.rounds = self.spec.rounds.min(committed as u32);
            // Abandoned rounds are repeated as abandoned ones, and must not end the job before its record does.
            let attempts = records.len() as u32 + 1;
            self.spec.limits.max_attempts = self.spec.limits.max_attempts.max(attempts);
            let mut accepted = Vec::new();
            for record in records {
                let clients = match record.abandoned {
                    Some(_) => None,
                    None => Some(record.accepted),
                };
                accepted.push((record.round, clients));
            }
            let (own, original) = (self.strategy.take(), self.spec.strategy.clone());
            if own.is_none() && original.build().is_none() {
                return Err(SimulationError::NoStrategy);
            }
            let factory = strategy_factory(move |spec, settings| {
                let inner = match (&own, original.build()) {
                    (Some(own), _) => (own.factory)(spec, settings)?,
                    (None, Some(strategy)) => strategy,
                    (None, None) => {
                        let problem = "the recorded run had a strategy that is not here";
                        return Err(StrategyError::Settings(problem.to_string()));
                    }
                };
                Ok(Replay::new(inner, accepted.clone()))
            });
            let name = STRATEGY.to_string();
            self.strategy = Some(OwnStrategy { name, factory });
        }
        if self.strategy.is_some() {
            // The factory of a job's own strategy looks for its settings there.
            let settings = match &mut self.spec.strategy {
                StrategySpec::Custom { settings, .. } => std::mem::take(settings),
                _ => Settings::new(),
            };
            self.spec.strategy = StrategySpec::Custom {
                name: STRATEGY.to_string(),
                settings,
            };
        }
        Ok(())
    }
}

/// The workers of a run.
#[derive(Default)]
struct Workers {
    running: JoinSet<Result<WorkerTotals, WorkerError>>,
    /// Turns true when they are to stop.
    stop: watch::Sender<bool>,
}

impl Workers {
    /// Starts this many, all alike.
    fn start(
        &mut self,
        count: usize,
        coordinator: &Coordinator,
        trainers: &Arc<dyn TrainerFactory>,
    ) {
        let handler = Arc::new(coordinator.clone());
        for index in 0..count {
            let config = WorkerConfig::new(format!("simulated-{index}"));
            let worker = Worker::new(InProcess::new(handler.clone()), trainers.clone(), config);
            let mut stopped = self.stop.subscribe();
            self.running.spawn(worker.run(async move {
                // An error means that the run itself is gone.
                let _ = stopped.wait_for(|stop| *stop).await;
            }));
        }
    }

    /// Why one of them ended by itself; as long as none has, this waits.
    async fn failed(&mut self) -> WorkerError {
        while let Some(ended) = self.running.join_next().await {
            if let Ok(Err(error)) = ended {
                return error;
            }
        }
        std::future::pending().await
    }

    /// Tells all of them to stop, and waits for them: each waits for its trainings.
    async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.running.join_next().await.is_some() {}
    }
}

impl Checkpoints {
    fn is_due(&self, event: &LoggedEvent) -> bool {
        let is_commit = matches!(event.event, JobEvent::RoundCommitted { .. });
        let is_idle = self.saving.as_ref().is_none_or(JoinHandle::is_finished);
        is_commit && is_idle && self.last.elapsed() >= self.every
    }

    fn save(&mut self, result: SimulationResult) {
        self.last = Instant::now();
        let save = self.save.clone();
        self.saving = Some(tokio::task::spawn_blocking(move || {
            let mut save = save.lock().unwrap_or_else(PoisonError::into_inner);
            save(result);
        }));
    }
}

/// What there is of a job. Its specification is `asked`, not what the simulation made of it to run it.
async fn collect(
    coordinator: &Coordinator,
    job: JobId,
    asked: &JobSpec,
) -> Result<SimulationResult, SimulationError> {
    let here = Caller::in_process();
    let mut summary = coordinator.job(&here, job).await?;
    summary.spec = asked.clone();
    Ok(SimulationResult {
        job: summary,
        rounds: coordinator.rounds(&here, job, RoundId(0)).await?,
        log: coordinator.log(job).await.map_err(OperatorError::Refused)?,
        model: coordinator.model(&here, job, None).await?,
    })
}

/// Checks that a record has each round once, in order, from the first on.
fn check_records(records: &[RoundRecord], first: u32) -> Result<(), SimulationError> {
    let mut version = 0;
    for (record, round) in records.iter().zip(u64::from(first)..) {
        if record.round.0 != round {
            return Err(SimulationError::Replay(format!(
                "the record has round {} in place of round {round}: rounds are missing, or out of order",
                record.round
            )));
        }
        if let Some(made) = record.version {
            version += 1;
            if made.0 != version {
                return Err(SimulationError::Replay(format!(
                    "round {round} of the record made version {made}, and version {version} comes next"
                )));
            }
        }
    }
    Ok(())
}

/// Why a run has no result.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SimulationError {
    /// The coordinator does not take the job.
    #[error("the job is refused: {0}")]
    Refused(#[source] Refusal),
    /// The job failed.
    #[error("the job failed: {reason}")]
    Failed {
        /// Why.
        reason: String,
        /// What there is of the run: its rounds, its log and the last model.
        result: Box<SimulationResult>,
    },
    /// The strategy's plan needs what the trainers can't do.
    #[error(
        "the strategy needs what the trainers can't do: they lack {lacks} (`TrainerFactory::capabilities` says what they can)"
    )]
    Unsuited {
        /// What they lack.
        lacks: String,
    },
    /// The dataset can't be read.
    #[error(transparent)]
    Dataset(TrainError),
    /// A recorded run can't be repeated from what was given.
    #[error("the run can't be repeated: {0}")]
    Replay(String),
    /// A worker ended.
    #[error("a worker ended")]
    Worker(#[source] WorkerError),
    /// A simulation has no workers with data of their own.
    #[error(
        "--partition local trains on the workers' own data, and a simulation has no such workers; choose another partition"
    )]
    LocalData,
    /// The job asks for a strategy that nobody gave.
    #[error(
        "the job names a custom strategy, and this program has none; `Simulation::strategy` gives it one"
    )]
    NoStrategy,
    /// A recorded run can't be repeated.
    #[error(
        "a run with partition `proportional:measured` can't be repeated: who had which examples followed measured \
         speeds, which the record of its rounds does not have"
    )]
    MeasuredPartition,
    /// What the run left behind can't be read.
    #[error("the run's results can't be read")]
    Results(#[source] OperatorError),
    /// No threads could be started.
    #[error("can't start threads")]
    Runtime(#[source] io::Error),
}

impl From<OperatorError> for SimulationError {
    fn from(error: OperatorError) -> Self {
        match error {
            OperatorError::Refused(refusal) => Self::Refused(refusal),
            error => Self::Results(error),
        }
    }
}

#[cfg(test)]
mod tests;
