//! An algorithm as a composition of parts: who takes part, how much each client trains, which reports are left out, how much each
//! report counts, what clients minimize, how their reports become one update, and what moves the global model.

mod left;
mod reports;

use std::{fmt, sync::Arc};

pub use reports::ReducerNeeds;

use super::{
    AggregateContext, Aggregation, ClientObjective, FederatedStrategy, LocalWork, NextVersion,
    Reducer, Reduction, ReportFilter, RoundContext, RoundPlan, Sampler, ServerOptimizer, StateSpec,
    StrategyError, Weighting, client_objective, filter, local_work, reducer, sampler,
    server_optimizer, weighting,
};
use crate::{
    parameters::Role,
    report::DELTA,
    settings::{RoundLimits, TrainingSettings},
};

/// A strategy of seven parts. The default is FedAvg: McMahan et al., "Communication-Efficient Learning of Deep Networks from
/// Decentralized Data", AISTATS 2017, <https://arxiv.org/abs/1602.05629>, algorithm 1.
///
/// ```
/// use fedavg::strategy::{Composition, client_objective::Scaffold, server_optimizer::{Adam, Adaptive}};
///
/// // SCAFFOLD on the clients, FedAdam on the server.
/// let strategy = Composition::default()
///     .objective(Scaffold)
///     .optimizer(Adam::new(Adaptive::new(0.01, 1e-3, 0.9), 0.99));
/// ```
#[derive(Clone)]
pub struct Composition {
    pub(super) sampler: Arc<dyn Sampler>,
    pub(super) work: Arc<dyn LocalWork>,
    pub(super) filter: Arc<dyn ReportFilter>,
    pub(super) weighting: Arc<dyn Weighting>,
    pub(super) objective: Arc<dyn ClientObjective>,
    pub(super) reducer: Arc<dyn Reducer>,
    pub(super) optimizer: Arc<dyn ServerOptimizer>,
}

impl Default for Composition {
    fn default() -> Self {
        Self {
            sampler: Arc::new(sampler::Uniform::default()),
            work: Arc::new(local_work::Same),
            filter: Arc::new(filter::Everything),
            weighting: Arc::new(weighting::Examples),
            objective: Arc::new(client_objective::Plain),
            reducer: Arc::new(reducer::Mean),
            optimizer: Arc::new(server_optimizer::Sgd::default()),
        }
    }
}

impl fmt::Debug for Composition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Composition")
            .finish_non_exhaustive()
    }
}

impl Composition {
    /// The same with another sampler.
    pub fn sampler(mut self, sampler: impl Sampler + 'static) -> Self {
        self.sampler = Arc::new(sampler);
        self
    }

    /// The same with another amount of work for each client.
    pub fn work(mut self, work: impl LocalWork + 'static) -> Self {
        self.work = Arc::new(work);
        self
    }

    /// The same with another filter of reports.
    pub fn filter(mut self, filter: impl ReportFilter + 'static) -> Self {
        self.filter = Arc::new(filter);
        self
    }

    /// The same with another weighting.
    pub fn weighting(mut self, weighting: impl Weighting + 'static) -> Self {
        self.weighting = Arc::new(weighting);
        self
    }

    /// The same with another client objective.
    pub fn objective(mut self, objective: impl ClientObjective + 'static) -> Self {
        self.objective = Arc::new(objective);
        self
    }

    /// The same with another way to make one update of the reports.
    pub fn reducer(mut self, reducer: impl Reducer + 'static) -> Self {
        self.reducer = Arc::new(reducer);
        self
    }

    /// The same with another server optimizer.
    pub fn optimizer(mut self, optimizer: impl ServerOptimizer + 'static) -> Self {
        self.optimizer = Arc::new(optimizer);
        self
    }
}

impl Composition {
    /// Checks again what a schedule or a client's own work has changed.
    fn check_plan(&self, plan: &RoundPlan) -> Result<(), StrategyError> {
        let own = plan
            .members
            .iter()
            .filter_map(|member| member.training.as_ref());
        for training in own.chain([&plan.training]) {
            self.check(training).map_err(StrategyError::Plan)?;
        }
        Ok(())
    }
}

impl FederatedStrategy for Composition {
    fn state(&self) -> StateSpec {
        let mut state = self.optimizer.state();
        let StateSpec { tensors, numbers } = self.objective.state();
        // A name that both have is refused by the check of the whole.
        state.tensors.extend(tensors);
        state.numbers.extend(numbers);
        let StateSpec { tensors, numbers } = self.reducer.state();
        state.tensors.extend(tensors);
        state.numbers.extend(numbers);
        state
    }

    fn check(&self, training: &TrainingSettings) -> Result<(), String> {
        self.objective.check(training)
    }

    fn check_limits(&self, limits: &RoundLimits, clients: Option<u32>) -> Result<(), String> {
        self.sampler.check(limits)?;
        self.check_reports(limits, clients)
    }

    fn uses_capacity(&self) -> bool {
        self.sampler.uses_capacity() || self.work.uses_capacity()
    }

    fn plan(&self, round: &RoundContext<'_>) -> Result<RoundPlan, StrategyError> {
        let cohort = self.sampler.sample(round)?;
        let mut plan = round.plan(cohort.clients);
        plan.goal = cohort.goal;
        plan.quorum = cohort.quorum;
        plan.objective = self.objective.objective(round.numbers);
        plan.sends = self.objective.sends();
        plan.expects.extend(self.objective.expects());
        for member in &mut plan.members {
            let known = &round.clients;
            let found = known.binary_search_by_key(&member.client, |client| client.id);
            if let Ok(place) = found {
                member.training = self.work.training(&known[place], round.training);
            }
        }
        self.require_reports(&mut plan)?;
        self.check_plan(&plan)?;
        Ok(plan)
    }

    fn aggregate(
        &self,
        round: &AggregateContext<'_>,
        next: &mut NextVersion<'_>,
    ) -> Result<Aggregation, StrategyError> {
        let accepted = round;
        let left = self.left(accepted)?;
        // From here on, it is as if what the filter left out had never been accepted: coefficients are those of the rest.
        let round = &left.context(accepted);
        let weights = self.weighting.weights(round);
        let counted = self.objective.count(round, weights)?;
        let reduced = self.reducer.reduce(round, counted, next)?;
        let Reduction {
            counted,
            rule: reduction,
        } = reduced;
        self.objective.begin(round, next);
        self.optimizer.begin(round, next);
        let rule = self.objective.block_rule();
        let adds = rule.is_none() && self.optimizer.adds_the_update();
        next.fold(&counted.inputs, &|rows, out| {
            // Statistics are reduced, never optimized.
            let adds = adds || rows.role() == Role::Buffer;
            let mut update = match &reduction {
                None if adds => return out.add_mean(rows, DELTA),
                None => rows.mean(DELTA).to_vec(),
                Some(reduction) => {
                    let mut update = vec![0.0; rows.len()];
                    reduction.reduce(rows, &mut update, out);
                    update
                }
            };
            if adds {
                return out.add(&update);
            }
            if let Some(rule) = rule {
                rule.apply(round, rows, &mut update, out);
            }
            self.optimizer.step(round, &update, out);
        })?;
        let mut aggregation = Aggregation::new(counted.inputs.clients(), counted.total_weight);
        aggregation.excluded = counted.excluded;
        aggregation.metrics = counted.metrics;
        left.add_to(&mut aggregation);
        Ok(aggregation)
    }
}

#[cfg(test)]
mod tests;
