//! What a round does with its clients and their reports: the algorithm of federated learning, as a value.
//!
//! A strategy *plans* a round (who trains, with which settings, how many reports are enough) and *aggregates* its
//! reports into the next global model. It owns no loop, no network, no clock and no sleep: the round machine decides
//! when, and the coordinator carries it out. An algorithm is a composition of parts: [`FedAvg`] is a
//! [`UniformSampler`], a [`Weighting`] and the fold [`weighted_mean`].
//!
//! ```
//! use fedavg::strategy::{FedAvg, FederatedStrategy, UniformSampler, Weighting};
//!
//! let half_of_the_clients = FedAvg { sampler: UniformSampler { fraction: 0.5, ..Default::default() }, ..Default::default() };
//! let strategy: Box<dyn FederatedStrategy> = Box::new(half_of_the_clients);
//! # assert!(strategy.export_state().is_empty());
//! ```

mod fedavg;
mod fold;
mod plan;
mod replay;
mod sampler;
mod weighting;

use std::{collections::BTreeMap, sync::Arc};

pub use fedavg::FedAvg;
pub use fold::weighted_mean;
pub use plan::{Aggregation, ClientInfo, Member, RoundPlan};
pub use replay::Replay;
pub use sampler::UniformSampler;
use thiserror::Error;
pub use weighting::Weighting;

use crate::{
    ids::{ModelVersion, RoundId},
    parameters::{BlockError, BlockReader, BlockWriter, Parameters},
    report::{ReportError, Reports},
    rng::{self, ChaCha8Rng, Purpose},
    settings::TrainingSettings,
};

/// One algorithm of federated learning. Object-safe, so that configuration chooses it at run time.
///
/// # Contract for implementors
///
/// - `plan` and `aggregate` are functions of their arguments and of the state that `export_state` shows: the same
///   arguments and state give the same bits. All randomness comes from the `rng` argument.
/// - `aggregate` reads `global` and the reports as often as it likes and writes every value of `next` exactly once. It publishes nothing: on an error, a panic or a cancellation the caller drops `next` and builds the
///   strategy again from the state that it exported at the last commit.
/// - Reports come in client order. Threads come from [`Reports::executor`]; the result must not depend on how many.
pub trait FederatedStrategy: Send {
    /// Decides who trains in a round and how many reports are enough.
    ///
    /// # Errors
    ///
    /// [`StrategyError`] where no round can be planned, which abandons the round.
    fn plan(
        &mut self,
        round: &RoundContext<'_>,
        rng: &mut RoundRng,
    ) -> Result<RoundPlan, StrategyError>;

    /// Makes the next global model out of this one and a round's reports.
    ///
    /// # Errors
    ///
    /// [`StrategyError`] where it can't, which abandons the round and leaves the global model as it was.
    fn aggregate(
        &mut self,
        global: &dyn BlockReader,
        reports: &Reports<'_>,
        next: &mut dyn BlockWriter,
    ) -> Result<Aggregation, StrategyError>;

    /// What has to survive between rounds beside the global model: momenta, moments, control variates. Part of every
    /// checkpoint.
    fn export_state(&self) -> StrategyState;

    /// Takes back what `export_state` gave.
    ///
    /// # Errors
    ///
    /// [`StrategyError::State`] where it is not this strategy's.
    fn import_state(&mut self, state: StrategyState) -> Result<(), StrategyError>;
}

/// What a strategy knows when it plans a round.
#[derive(Debug, Clone, Copy)]
pub struct RoundContext<'a> {
    /// The round's number.
    pub round: RoundId,
    /// The version of the global model that the round starts from.
    pub version: ModelVersion,
    /// The clients that can take part: all of the job's, less those of `local` data whose worker is gone. In order.
    pub clients: &'a [ClientInfo],
    /// The job's settings for local training.
    pub training: &'a TrainingSettings,
    /// The job's quorum.
    pub quorum: usize,
    /// The job's goal, where the operator fixed one.
    pub goal: Option<usize>,
}

/// A round's randomness: generators keyed by the job's seed and the round.
#[derive(Debug, Clone, Copy)]
pub struct RoundRng {
    seed: u64,
    round: RoundId,
}

impl RoundRng {
    /// The randomness of this round of a job with this seed.
    pub fn new(seed: u64, round: RoundId) -> Self {
        Self { seed, round }
    }

    /// The generator for a purpose; asked twice, it begins anew.
    pub fn generator(&self, purpose: Purpose) -> ChaCha8Rng {
        rng::keyed(self.seed, purpose, self.round, None)
    }
}

/// A strategy's state between rounds: numbers, and values of the model's size.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StrategyState {
    /// Counters and scalars, by name.
    pub numbers: BTreeMap<String, f64>,
    /// Momenta and the like, by name.
    pub parameters: BTreeMap<String, Arc<Parameters>>,
}

impl StrategyState {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty() && self.parameters.is_empty()
    }
}

/// Why a strategy could not do its part.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum StrategyError {
    /// No cohort can be made of these clients.
    #[error("no round can be planned: {0}")]
    Plan(String),
    /// The reports can't be aggregated: all weights are zero, for example.
    #[error("the reports can't be aggregated: {0}")]
    Aggregate(String),
    /// A report could not be read.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// The global model could not be read, or the next one not written.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// The state is another strategy's.
    #[error("not this strategy's state: {0}")]
    State(String),
}
