//! What a run is made of. It must never do anything itself: [`super::run`] makes the run.

use std::{fmt, sync::Arc, time::Duration};

use super::{checkpoints::Checkpoints, own_strategy::OwnStrategy, result::SimulationResult};
use crate::{
    coordinator::CoordinatorConfig,
    job::{JobSpec, Settings},
    parameters::{Digest, Parameters},
    protocol::{LoggedEvent, RoundRecord},
    strategy::{Catalogue, FederatedStrategy, StrategyError},
    worker::TrainerFactory,
};

type Observer = Box<dyn FnMut(&LoggedEvent) + Send>;

/// A run to be made.
pub struct Simulation {
    pub(super) spec: JobSpec,
    pub(super) trainers: Arc<dyn TrainerFactory>,
    pub(super) workers: usize,
    pub(super) config: CoordinatorConfig,
    pub(super) initial: Option<Parameters>,
    pub(super) strategy: Option<OwnStrategy>,
    pub(super) catalogue: Catalogue,
    pub(super) replay: Option<Vec<RoundRecord>>,
    pub(super) observer: Option<Observer>,
    pub(super) checkpoints: Option<Checkpoints>,
    pub(super) expected_initial: Option<Digest>,
}

impl fmt::Debug for Simulation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Functions have no Debug, and the initial model can be megabytes.
        formatter
            .debug_struct("Simulation")
            .field("spec", &self.spec)
            .field("workers", &self.workers)
            .field("config", &self.config)
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
            catalogue: Catalogue::default(),
            replay: None,
            observer: None,
            checkpoints: None,
            expected_initial: None,
        }
    }

    /// How many clients train at once; at least 1.
    pub fn workers(mut self, workers: usize) -> Self {
        // Without a worker the job would wait forever.
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
        self.strategy = Some(OwnStrategy::new(make));
        self
    }

    /// The parts that the job's strategy can be composed of, instead of this crate's alone.
    pub fn catalogue(mut self, catalogue: Catalogue) -> Self {
        self.catalogue = catalogue;
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
        self.checkpoints = Some(Checkpoints::new(every, save));
        self
    }

    /// Fails at once, with [`SimulationError::Replay`](super::SimulationError::Replay), if the initial model is not the one
    /// with this digest ([`JobSummary::initial_digest`](crate::protocol::JobSummary::initial_digest)).
    pub fn expect_initial(mut self, digest: Digest) -> Self {
        self.expected_initial = Some(digest);
        self
    }
}
