//! The coordinator: carries out what the round machine orders, and answers workers and operators.
//!
//! All decisions are the machine's and the strategy's; this module has the clock, the threads, the queue of jobs and the
//! models. Everything that decides happens under one lock that is held for microseconds; whatever takes longer (dealing
//! data, planning, folding, evaluating, reading a body) runs outside of it and comes back as an event, so that
//! heart-beats are answered meanwhile.

mod account;
mod admission;
mod config;
mod copies;
mod deal;
mod driver;
mod executor;
mod fold;
mod former;
mod handler;
mod job;
mod needs;
mod operator;
mod prepare;
mod speed;
mod state;
mod submission;
#[cfg(all(test, feature = "http"))]
mod tests;
mod upload;
mod work;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

pub use config::CoordinatorConfig;
pub use executor::Threads;
use state::State;
use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore},
};

use crate::{
    ids::Timestamp,
    job::{JobSpec, Settings},
    protocol::DatasetInfo,
    report::{MemorySpool, Spool},
    store::{MemoryModels, ModelStore},
    strategy::{FederatedStrategy, StrategyError},
    worker::TrainerFactory,
};

/// Makes a strategy of an embedder's own for a job, from the settings that the job gives.
pub(crate) type StrategyFactory = Arc<
    dyn Fn(&JobSpec, &Settings) -> Result<Arc<dyn FederatedStrategy>, StrategyError> + Send + Sync,
>;

/// The factory of strategies of one type.
pub(crate) fn strategy_factory<S: FederatedStrategy + 'static>(
    make: impl Fn(&JobSpec, &Settings) -> Result<S, StrategyError> + Send + Sync + 'static,
) -> StrategyFactory {
    Arc::new(move |job, settings| Ok(Arc::new(make(job, settings)?)))
}

/// Owns jobs: hands out work, collects reports, folds them. A handle: clones are the same coordinator.
#[derive(Clone)]
pub struct Coordinator(Arc<Shared>);

impl fmt::Debug for Coordinator {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Coordinator")
            .field("config", &self.0.config)
            .finish_non_exhaustive()
    }
}

struct Shared {
    config: CoordinatorConfig,
    trainers: Arc<dyn TrainerFactory>,
    strategies: BTreeMap<String, StrategyFactory>,
    spool: Arc<dyn Spool>,
    models: Arc<dyn ModelStore>,
    /// How many reports are taken at once, and how many batches of their bytes wait for the spool.
    uploads: Semaphore,
    batches: Arc<Semaphore>,
    executor: Threads,
    /// What the coordinator itself has of the data.
    datasets: Vec<DatasetInfo>,
    runtime: Handle,
    clock: Clock,
    state: Mutex<State>,
    /// The next deadline may have moved nearer.
    rearm: Notify,
}

/// What a coordinator is made of.
pub struct CoordinatorBuilder {
    config: CoordinatorConfig,
    trainers: Arc<dyn TrainerFactory>,
    strategies: BTreeMap<String, StrategyFactory>,
    spool: Option<Arc<dyn Spool>>,
    models: Arc<dyn ModelStore>,
}

impl fmt::Debug for CoordinatorBuilder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CoordinatorBuilder")
            .field("config", &self.config)
            .field("strategies", &self.strategies.keys())
            .finish_non_exhaustive()
    }
}

impl CoordinatorBuilder {
    /// Limits other than the defaults.
    pub fn config(mut self, config: CoordinatorConfig) -> Self {
        self.config = config;
        self
    }

    /// Another place for reports than memory.
    pub fn spool(mut self, spool: Arc<dyn Spool>) -> Self {
        self.spool = Some(spool);
        self
    }

    /// Another place for global models than memory.
    pub fn models(mut self, models: Arc<dyn ModelStore>) -> Self {
        self.models = models;
        self
    }

    /// A strategy that jobs can ask for by this name: `make` gets the job and the settings that it gives the strategy.
    ///
    /// An error or a panic of `make` refuses the job at its submission, with that message.
    pub fn strategy<S: FederatedStrategy + 'static>(
        mut self,
        name: impl Into<String>,
        make: impl Fn(&JobSpec, &Settings) -> Result<S, StrategyError> + Send + Sync + 'static,
    ) -> Self {
        self.strategies.insert(name.into(), strategy_factory(make));
        self
    }

    /// Starts it, on the tokio runtime that this is called in.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn start(self) -> Coordinator {
        let expiry = self.config.worker_expiry;
        let spool = self
            .spool
            .unwrap_or_else(|| Arc::new(MemorySpool::new(self.config.spool_bytes)));
        let coordinator = Coordinator(Arc::new(Shared {
            uploads: Semaphore::new(self.config.max_uploads.max(1)),
            batches: Arc::new(Semaphore::new(
                (self.config.upload_buffer / upload::BATCH).max(1),
            )),
            executor: Threads::new(self.config.fold_threads),
            datasets: self.trainers.datasets(),
            runtime: Handle::current(),
            config: self.config,
            trainers: self.trainers,
            strategies: self.strategies,
            spool,
            models: self.models,
            clock: Clock::start(),
            state: Mutex::new(State::new(expiry)),
            rearm: Notify::new(),
        }));
        tokio::spawn(keep_time(Arc::downgrade(&coordinator.0)));
        coordinator
    }
}

impl Coordinator {
    /// A coordinator that knows the models and the data of this factory.
    pub fn builder(trainers: Arc<dyn TrainerFactory>) -> CoordinatorBuilder {
        CoordinatorBuilder {
            config: CoordinatorConfig::default(),
            trainers,
            strategies: BTreeMap::new(),
            spool: None,
            models: Arc::new(MemoryModels),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Timestamp {
        self.0.clock.now()
    }
}

/// Milliseconds since the Unix epoch that never go back, whatever happens to the system's clock.
struct Clock {
    origin: u64,
    start: Instant,
}

impl Clock {
    fn start() -> Self {
        let origin = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            origin: origin.as_millis() as u64,
            start: Instant::now(),
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.origin + self.start.elapsed().as_millis() as u64)
    }
}

/// Sends a tick at each deadline, as long as the coordinator lives.
async fn keep_time(shared: std::sync::Weak<Shared>) {
    loop {
        let Some(coordinator) = shared.upgrade().map(Coordinator) else {
            return;
        };
        let next = coordinator.tick();
        let wait = next.map_or(Duration::from_secs(1), |next| next.since(coordinator.now()));
        let wait = wait.clamp(Duration::from_millis(1), Duration::from_secs(1));
        // At most a second, so that a coordinator that nobody holds any more is let go.
        let _ = tokio::time::timeout(wait, coordinator.0.rearm.notified()).await;
    }
}
