//! For tests of strategies: a round in memory, without a coordinator.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::{
    AggregateContext, Aggregation, ClientInfo, FederatedStrategy, Initial, RoundContext, RoundPlan,
    StateValues, StrategyError, Version, VersionSink, aggregate,
};
use crate::{
    ids::{ModelVersion, RoundId},
    parameters::{BlockError, BlockWriter, Parameters, PayloadSpec, Roles},
    report::{DELTA, Executor, Report, Serial},
    settings::TrainingSettings,
};

/// Has folds do without AVX-512 from now on, or use it again, in all of this process: for benchmarks of CPUs that lack it.
#[cfg(feature = "testing")]
pub fn without_avx512(narrow: bool) {
    super::kernel::NARROW.store(narrow, std::sync::atomic::Ordering::Relaxed);
}

/// A model that a strategy takes from version to version, in memory.
pub struct MemoryRounds {
    strategy: Arc<dyn FederatedStrategy>,
    clients: Vec<ClientInfo>,
    training: TrainingSettings,
    version: ModelVersion,
    model: Parameters,
    states: Vec<(String, Roles, Parameters)>,
    numbers: BTreeMap<String, f64>,
}

impl fmt::Debug for MemoryRounds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "MemoryRounds({})", self.version)
    }
}

impl MemoryRounds {
    /// The model at version 0, for these clients.
    ///
    /// # Errors
    ///
    /// [`StrategyError::State`] if the strategy's state does not fit the model.
    pub fn new(
        strategy: Arc<dyn FederatedStrategy>,
        model: Parameters,
        clients: Vec<ClientInfo>,
        training: TrainingSettings,
    ) -> Result<Self, StrategyError> {
        let spec = strategy.state();
        spec.check(model.layout())?;
        let mut states = Vec::new();
        for tensor in &spec.tensors {
            let values = match &tensor.initial {
                Initial::Values(values) => (**values).clone(),
                Initial::Filled(value) => {
                    let values = vec![*value; model.layout().len()];
                    Parameters::new(model.layout().clone(), values)
                        .map_err(|error| StrategyError::State(error.to_string()))?
                }
            };
            states.push((tensor.name.clone(), tensor.roles, values));
        }
        Ok(Self {
            strategy,
            clients,
            training,
            version: ModelVersion(0),
            model,
            states,
            numbers: spec.numbers,
        })
    }

    /// The model of the last version.
    pub fn model(&self) -> &Parameters {
        &self.model
    }

    /// A tensor of the strategy's state at the last version.
    pub fn state(&self, name: &str) -> Option<&Parameters> {
        let found = self.states.iter().find(|(known, _, _)| known == name);
        found.map(|(_, _, values)| values)
    }

    /// All tensors of the strategy's state, in the order of its [`StateSpec`](super::StateSpec).
    pub fn states(&self) -> impl Iterator<Item = &Parameters> {
        self.states.iter().map(|(_, _, values)| values)
    }

    /// Plans a round.
    ///
    /// # Errors
    ///
    /// What the strategy says.
    pub fn plan(&self, round: RoundId) -> Result<RoundPlan, StrategyError> {
        let delta = PayloadSpec::model(DELTA, Roles::TRAINED);
        let mut context = RoundContext::new(round, &self.clients, &self.training, &delta);
        context.version = self.version;
        context.numbers = &self.numbers;
        self.strategy.plan(&context)
    }

    /// Aggregates the reports of a round into the next version. After an error, the version is the one before.
    ///
    /// # Errors
    ///
    /// What the strategy says.
    pub fn aggregate(
        &mut self,
        round: RoundId,
        plan: &RoundPlan,
        reports: &[Report],
        executor: &dyn Executor,
    ) -> Result<Aggregation, StrategyError> {
        let mut states = Vec::new();
        for (name, roles, values) in &self.states {
            states.push(StateValues {
                name,
                roles: *roles,
                values,
            });
        }
        let version = Version {
            number: self.version,
            model: &self.model,
            states: &states,
            numbers: &self.numbers,
        };
        let context = AggregateContext::new(round, plan, reports, version, executor)?;
        let context = context.with_population(&self.clients);
        let mut next = Memory {
            model: Parameters::zeros(self.model.layout().clone()),
            states: self.states.clone(),
        };
        let (aggregation, numbers) = aggregate(&*self.strategy, context, &mut next)?;
        self.version = self.version.next();
        self.model = next.model;
        self.states = next.states;
        self.numbers = numbers;
        for client in &mut self.clients {
            if aggregation.folded.binary_search(&client.id).is_ok() {
                client.basis = Some(round);
            }
        }
        Ok(aggregation)
    }
}

struct Memory {
    model: Parameters,
    states: Vec<(String, Roles, Parameters)>,
}

impl VersionSink for Memory {
    fn write(&mut self, offset: usize, values: &[f32]) -> Result<(), BlockError> {
        self.model.write(offset, values)
    }

    fn write_state(
        &mut self,
        state: usize,
        offset: usize,
        values: &[f32],
    ) -> Result<(), BlockError> {
        self.states[state].2.write(offset, values)
    }
}

/// The next global model that a strategy makes of this one and these reports, in client order, in a first round.
///
/// # Errors
///
/// What the strategy says.
pub fn next_model(
    strategy: &(impl FederatedStrategy + Clone + 'static),
    global: &Parameters,
    reports: &[Report],
) -> Result<Parameters, StrategyError> {
    let clients = reports.iter().map(|report| report.client);
    let plan = RoundPlan::new(clients.clone(), TrainingSettings::default());
    let clients = clients.map(|client| ClientInfo::new(client, 1)).collect();
    let (strategy, training) = (Arc::new(strategy.clone()), TrainingSettings::default());
    let mut rounds = MemoryRounds::new(strategy, global.clone(), clients, training)?;
    rounds.aggregate(RoundId(1), &plan, reports, &Serial)?;
    Ok(rounds.model)
}
