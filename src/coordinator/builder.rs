//! What a coordinator is made of, and its start.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, atomic::AtomicBool},
};

use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore, mpsc, watch},
};

use super::{
    clock::Clock,
    config::CoordinatorConfig,
    effects::{self, Effect, Effects},
    executor::Threads,
    handle::{Coordinator, Shared, StrategyFactory, strategy_factory},
    recovery::{Beginning, RecoveryError},
    state::State,
    timekeeper::keep_time,
    upload,
};
use crate::{
    access::Tokens,
    computing::Computing,
    job::{JobSpec, Settings},
    report::{MemorySpool, Spool},
    store::{Journal, LogFiles, LogPlace, MemoryModels, ModelStore, journal::Pending},
    strategy::{Catalogue, FederatedStrategy, StrategyError},
    worker::TrainerFactory,
};

/// What a coordinator is made of.
pub struct CoordinatorBuilder {
    config: CoordinatorConfig,
    trainers: Arc<dyn TrainerFactory>,
    strategies: BTreeMap<String, StrategyFactory>,
    catalogue: Catalogue,
    spool: Option<Arc<dyn Spool>>,
    models: Arc<dyn ModelStore>,
    logs: LogPlace,
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

    /// Another place for what logs and records do not have in memory than files without a name in the system's folder for
    /// temporary files.
    pub fn logs(mut self, logs: LogFiles) -> Self {
        self.logs = LogPlace::Files(logs);
        self
    }

    /// The parts that jobs' strategies can be composed of, instead of this crate's alone.
    pub fn catalogue(mut self, catalogue: Catalogue) -> Self {
        self.catalogue = catalogue;
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

    /// Starts a coordinator whose jobs end with it, on the tokio runtime that this is called in. What an earlier one left in the
    /// places for reports, models and logs is removed.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn start(self) -> Coordinator {
        if let LogPlace::Files(files) = &self.logs {
            warn(files.clear());
        }
        let coordinator = self.build(None, Beginning::default());
        warn(coordinator.0.models.retain(&|_, _| false));
        warn(coordinator.0.spool.retain(&|_| false, &|_| false));
        coordinator.run(None);
        coordinator
    }

    /// Starts a coordinator that goes on where the one before ended, whatever ended it, on the tokio runtime that this is called
    /// in. The places for reports and models must be the same as before. What nobody knows of in them is removed.
    ///
    /// It reads files, and so may wait for a disk.
    ///
    /// # Errors
    ///
    /// [`RecoveryError`] if the journal can't be read. A job that can't go on fails, and the others go on.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn recover(mut self, journal: Arc<dyn Journal>) -> Result<Coordinator, RecoveryError> {
        let beginning = Beginning::read(&*journal)?;
        let (effects, due) = mpsc::unbounded_channel();
        self.logs = LogPlace::Journal(journal.clone());
        let coordinator = self.build(Some((journal, effects)), beginning);
        coordinator.recover()?;
        coordinator.run(Some(due));
        Ok(coordinator)
    }

    fn build(
        self,
        journal: Option<(Arc<dyn Journal>, Effects)>,
        beginning: Beginning,
    ) -> Coordinator {
        let expiry = self.config.workers.expiry;
        let access = &self.config.access;
        let tokens = Tokens::fixed(access.join_token.as_ref(), access.admin_token.as_ref());
        let remembered = self.config.workers.keep;
        let spool = self
            .spool
            .unwrap_or_else(|| Arc::new(MemorySpool::new(self.config.uploads.spool_bytes)));
        let (journal, effects) = journal.unzip();
        Coordinator(Arc::new(Shared {
            identity: beginning.identity,
            term: beginning.term,
            journal,
            effects,
            // Without a permit no report could ever come in, so 0 counts as 1; here and in the next one.
            uploads: Semaphore::new(self.config.uploads.max.max(1)),
            batches: Arc::new(Semaphore::new(
                (self.config.uploads.buffer / upload::BATCH).max(1),
            )),
            executor: Threads::new(self.config.fold_threads),
            // Asked once: registrations are compared with them under the lock, where no code of an embedder may run.
            datasets: self.trainers.datasets(),
            runtime: Handle::current(),
            config: self.config,
            trainers: self.trainers,
            strategies: self.strategies,
            catalogue: self.catalogue,
            spool,
            models: self.models,
            logs: self.logs,
            clock: Clock::start(beginning.time),
            state: Mutex::new(State::new(expiry, remembered, tokens)),
            rearm: Notify::new(),
            computing: Computing::default(),
            stopped: AtomicBool::new(false),
            broken: watch::Sender::new(None),
        }))
    }
}

/// What can't be removed takes space, and harms nothing else.
fn warn<E: fmt::Display>(removed: Result<(), E>) {
    if let Err(error) = removed {
        tracing::warn!(%error, "what an earlier coordinator left stays behind");
    }
}

impl Coordinator {
    /// Starts what goes on by itself.
    fn run(&self, effects: Option<mpsc::UnboundedReceiver<(Pending, Effect)>>) {
        // A weak reference: a strong one would keep the coordinator and its models as long as the runtime.
        tokio::spawn(keep_time(Arc::downgrade(&self.0)));
        if let Some(effects) = effects {
            tokio::spawn(effects::carry_out(effects, self.0.broken.clone()));
        }
    }
}

impl Coordinator {
    /// A coordinator that knows the models and the data of this factory.
    pub fn builder(trainers: Arc<dyn TrainerFactory>) -> CoordinatorBuilder {
        CoordinatorBuilder {
            config: CoordinatorConfig::default(),
            trainers,
            strategies: BTreeMap::new(),
            catalogue: Catalogue::default(),
            spool: None,
            models: Arc::new(MemoryModels),
            logs: LogPlace::Files(LogFiles::temporary()),
        }
    }
}
