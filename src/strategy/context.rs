//! What a strategy knows: of a round that it plans, and of one whose reports it aggregates.

use std::{
    collections::BTreeMap,
    fmt,
    sync::atomic::{AtomicBool, Ordering},
};

use super::{ClientInfo, RoundPlan, StrategyError};
use crate::{
    ids::{ClientId, ModelVersion, RoundId},
    parameters::{Block, BlockBuffer, BlockReader, PayloadSpec, Roles, Shape},
    report::{Executor, Report},
    rng::{self, ChaCha8Rng, Purpose},
    settings::TrainingSettings,
};

/// The seeds of a job's random draws.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seeds {
    /// The job's seed, which workers know.
    pub public: u64,
    /// A seed that never leaves the coordinator.
    pub secret: [u8; 32],
}

impl Seeds {
    /// A job's seed, with a secret that is derived from it: for tests and simulations, which must be repeatable.
    pub fn derived(public: u64) -> Self {
        let mut secret = [0; 32];
        // The same for the same seed, and so no secret at all: a coordinator draws its own from the operating system.
        secret[..8].copy_from_slice(&public.to_le_bytes());
        Self { public, secret }
    }
}

impl fmt::Debug for Seeds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the secret, which would otherwise be in every log line of a context.
        write!(formatter, "Seeds({}, ..)", self.public)
    }
}

/// What a strategy knows when it plans a round.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct RoundContext<'a> {
    /// The round's number.
    pub round: RoundId,
    /// The version of the global model that the round starts from.
    pub version: ModelVersion,
    /// The clients that can take part, in order: all of the job's, but for those of `local` data whose worker is gone.
    pub clients: &'a [ClientInfo],
    /// The job's settings for local training.
    pub training: &'a TrainingSettings,
    /// The job's quorum.
    pub quorum: usize,
    /// The job's goal, if the operator fixed one.
    pub goal: Option<usize>,
    /// The payload `delta` in the job's encoding.
    pub delta: &'a PayloadSpec,
    /// The numbers of the strategy's state.
    pub numbers: &'a BTreeMap<String, f64>,
    /// The job's seeds.
    pub seeds: Seeds,
}

impl<'a> RoundContext<'a> {
    /// A round of these clients, without a state, a quorum of 1 and the seed 0. The public fields change that.
    pub fn new(
        round: RoundId,
        clients: &'a [ClientInfo],
        training: &'a TrainingSettings,
        delta: &'a PayloadSpec,
    ) -> Self {
        static NO_NUMBERS: BTreeMap<String, f64> = BTreeMap::new();
        Self {
            round,
            // As if no round before it had been abandoned.
            version: ModelVersion(round.0.saturating_sub(1)),
            clients,
            training,
            quorum: 1,
            goal: None,
            delta,
            numbers: &NO_NUMBERS,
            seeds: Seeds::derived(0),
        }
    }

    /// A plan for these clients, in rising order: it waits for all, and has the job's quorum, settings and encoding.
    pub fn plan(&self, clients: impl IntoIterator<Item = ClientId>) -> RoundPlan {
        let mut plan = RoundPlan::new(clients, self.training.clone());
        // The strategy may ask for more, never for less: the machine checks that.
        plan.quorum = self.quorum;
        plan.expects = vec![self.delta.clone()];
        plan
    }

    /// A generator keyed by the job's seed, which workers know, the round, a purpose and a stream. The same key gives the
    /// same numbers.
    pub fn rng(&self, purpose: Purpose, stream: u64) -> ChaCha8Rng {
        rng::streamed(self.seeds.public, purpose, self.round, stream)
    }

    /// The same from a seed that never leaves the coordinator.
    pub fn secret_rng(&self, purpose: Purpose, stream: u64) -> ChaCha8Rng {
        rng::secret(&self.seeds.secret, purpose, self.round, stream)
    }
}

/// What a strategy knows when it aggregates a round. Values of parameters are reached by block alone, through
/// [`AggregateContext::scan`] and [`NextVersion::fold`](super::NextVersion::fold).
#[derive(Clone, Copy)]
pub struct AggregateContext<'a> {
    pub(super) round: RoundId,
    pub(super) plan: &'a RoundPlan,
    pub(super) population: &'a [ClientInfo],
    pub(super) reports: &'a [Report],
    pub(super) version: Version<'a>,
    pub(super) executor: &'a dyn Executor,
    pub(super) seeds: Seeds,
    pub(super) cancelled: &'a AtomicBool,
}

/// The model version that a round starts from, with the strategy's state.
#[derive(Clone, Copy)]
pub struct Version<'a> {
    /// Its number.
    pub number: ModelVersion,
    /// The global model.
    pub model: &'a (dyn BlockReader + Send + Sync),
    /// The state's tensors, in the order of [`StateSpec::tensors`](super::StateSpec::tensors).
    pub states: &'a [StateValues<'a>],
    /// The state's numbers.
    pub numbers: &'a BTreeMap<String, f64>,
}

/// One tensor of a strategy's state, at a version.
#[derive(Clone, Copy)]
pub struct StateValues<'a> {
    /// Its name.
    pub name: &'a str,
    /// Which of the model's tensors it has.
    pub roles: Roles,
    /// Its values, by the model's layout; zeros for other roles.
    pub values: &'a (dyn BlockReader + Send + Sync),
}

impl fmt::Debug for StateValues<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "StateValues({:?})", self.name)
    }
}

impl fmt::Debug for Version<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Version({})", self.number)
    }
}

impl fmt::Debug for AggregateContext<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = formatter.debug_struct("AggregateContext");
        fields
            .field("round", &self.round)
            .field("version", &self.version);
        fields
            .field("reports", &self.reports.len())
            .finish_non_exhaustive()
    }
}

impl<'a> AggregateContext<'a> {
    /// The accepted reports of a round, in client order, on the version that they start from.
    ///
    /// # Errors
    ///
    /// [`StrategyError::Aggregate`] if the reports are not in strictly rising client order.
    pub fn new(
        round: RoundId,
        plan: &'a RoundPlan,
        reports: &'a [Report],
        version: Version<'a>,
        executor: &'a dyn Executor,
    ) -> Result<Self, StrategyError> {
        static NEVER: AtomicBool = AtomicBool::new(false);
        // Everything later relies on it: binary searches, and the order of additions.
        if !reports.is_sorted_by(|a, b| a.client < b.client) {
            let problem = "the reports are not in rising order of clients".to_string();
            return Err(StrategyError::Aggregate(problem));
        }
        Ok(Self {
            round,
            plan,
            population: &[],
            reports,
            version,
            executor,
            seeds: Seeds::derived(0),
            cancelled: &NEVER,
        })
    }

    /// The same with all clients of the job.
    pub fn with_population(mut self, population: &'a [ClientInfo]) -> Self {
        self.population = population;
        self
    }

    /// The same with the job's seeds.
    pub fn with_seeds(mut self, seeds: Seeds) -> Self {
        self.seeds = seeds;
        self
    }

    /// The same, to be given up once this is set.
    pub fn cancelled_by(mut self, cancelled: &'a AtomicBool) -> Self {
        self.cancelled = cancelled;
        self
    }

    /// The round.
    pub fn round(&self) -> RoundId {
        self.round
    }

    /// The version that the round starts from.
    pub fn version(&self) -> ModelVersion {
        self.version.number
    }

    /// What was planned.
    pub fn plan(&self) -> &'a RoundPlan {
        self.plan
    }

    /// All clients of the job, in order: their sizes, and when each was folded last.
    pub fn population(&self) -> &'a [ClientInfo] {
        self.population
    }

    /// The accepted reports, in client order: who sent them, and what they say of themselves.
    pub fn reports(&self) -> &'a [Report] {
        self.reports
    }

    /// A number of the strategy's state, as of the last commit; none if [`StateSpec`](super::StateSpec) does not name it.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.version.numbers.get(name).copied()
    }

    /// Whether the job was cancelled: `scan` and `fold` then give up by themselves.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// For loops of a strategy's own that take long.
    ///
    /// # Errors
    ///
    /// [`StrategyError::Cancelled`] if the job was cancelled.
    pub fn check_cancelled(&self) -> Result<(), StrategyError> {
        if self.is_cancelled() {
            return Err(StrategyError::Cancelled);
        }
        Ok(())
    }

    /// As [`RoundContext::rng`].
    pub fn rng(&self, purpose: Purpose, stream: u64) -> ChaCha8Rng {
        rng::streamed(self.seeds.public, purpose, self.round, stream)
    }

    /// As [`RoundContext::secret_rng`].
    pub fn secret_rng(&self, purpose: Purpose, stream: u64) -> ChaCha8Rng {
        rng::secret(&self.seeds.secret, purpose, self.round, stream)
    }

    /// The values of a client's payload that is a vector of f32, f64 or u32, all of which f64 has exactly.
    ///
    /// # Errors
    ///
    /// [`StrategyError::Report`] if the client sent no such payload or it can't be read, [`StrategyError::Aggregate`] if it is
    /// not a vector of that kind.
    pub fn vector(&self, client: ClientId, payload: &str) -> Result<Vec<f64>, StrategyError> {
        self.with_vector(client, payload, |block| match block {
            Block::F32(values) => Some(values.iter().map(|value| f64::from(*value)).collect()),
            Block::F64(values) => Some(values.to_vec()),
            Block::U32(values) => Some(values.iter().map(|value| f64::from(*value)).collect()),
            _ => None,
        })
    }

    /// The values of a client's payload that is a vector of u32 or u64.
    ///
    /// # Errors
    ///
    /// As [`AggregateContext::vector`].
    pub fn integers(&self, client: ClientId, payload: &str) -> Result<Vec<u64>, StrategyError> {
        self.with_vector(client, payload, |block| match block {
            Block::U32(values) => Some(values.iter().map(|value| u64::from(*value)).collect()),
            Block::U64(values) => Some(values.to_vec()),
            _ => None,
        })
    }

    fn with_vector<T>(
        &self,
        client: ClientId,
        payload: &str,
        read: impl FnOnce(Block<'_>) -> Option<T>,
    ) -> Result<T, StrategyError> {
        let found = self
            .reports
            .binary_search_by_key(&client, |report| report.client);
        let Ok(index) = found else {
            let problem = format!("client {client} has no accepted report");
            return Err(StrategyError::Aggregate(problem));
        };
        let unfit = || {
            let problem = format!(
                "payload {payload:?} of client {client} is not a vector of the type asked for"
            );
            StrategyError::Aggregate(problem)
        };
        let reader = self.reports[index].payload(payload)?;
        // The reader alone does not tell: a model of one tensor looks like a vector.
        let mut expected = self.plan.expects.iter().filter(|spec| spec.name == payload);
        if !expected.any(|spec| matches!(spec.shape, Shape::Vector(_))) {
            return Err(unfit());
        }
        let mut buffer = BlockBuffer::default();
        let block = reader.block(0..reader.layout().len(), &mut buffer)?;
        read(block).ok_or_else(unfit)
    }
}
