//! An algorithm as a composition of parts: who takes part, how much each client trains, how much each report counts, what clients
//! minimize, how their reports become one update, and what moves the global model.

use std::{fmt, sync::Arc};

use super::{
    AggregateContext, Aggregation, ClientObjective, FederatedStrategy, LocalWork, NextVersion,
    Reducer, Reduction, RoundContext, RoundPlan, Sampler, ServerOptimizer, StateSpec,
    StrategyError, Weighting, client_objective, local_work, reducer, sampler, server_optimizer,
    weighting,
};
use crate::{
    parameters::Role,
    report::DELTA,
    settings::{RoundLimits, TrainingSettings},
    words::plural,
};

/// A strategy of six parts. The default is FedAvg: McMahan et al., "Communication-Efficient Learning of Deep Networks from
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

/// What a reducer needs of a job's rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReducerNeeds {
    /// How many clients a round asks.
    pub cohort: usize,
    /// The fewest reports that the reducer can take.
    pub fewest: usize,
    /// How many attackers it is made to stand; none if it has no such number.
    pub faults: Option<usize>,
}

impl Composition {
    /// What the reducer needs; none if it is the mean, or the size of the cohorts is not known.
    pub fn reducer_needs(
        &self,
        limits: &RoundLimits,
        clients: Option<u32>,
    ) -> Option<ReducerNeeds> {
        if self.reducer.is_mean() {
            return None;
        }
        let cohort = self.cohort_size(limits, clients)?;
        Some(ReducerNeeds {
            cohort,
            fewest: self.reducer.fewest(cohort),
            faults: self.reducer.faults(cohort),
        })
    }

    /// How many clients a round asks, if that is known and always the same.
    fn cohort_size(&self, limits: &RoundLimits, clients: Option<u32>) -> Option<usize> {
        let goal = limits.goal.map(|goal| goal as usize);
        let quorum = limits.min_updates as usize;
        self.sampler.size(clients? as usize, goal, quorum)
    }

    fn too_few(&self, cohort: usize, limit: &str) -> String {
        let fewest = self.reducer.fewest(cohort);
        match self.reducer.faults(cohort) {
            Some(faults) if faults > 0 => {
                format!(
                    "the reducer needs at least {fewest} reports with f = {faults}, and {limit}"
                )
            }
            _ => format!("the reducer needs at least {fewest} reports, and {limit}"),
        }
    }

    /// Asks for as many reports as the reducer needs.
    fn require_reports(&self, plan: &mut RoundPlan) -> Result<(), StrategyError> {
        let cohort = plan.cohort_size();
        // Without clients there is nothing to reduce, and a plan that allows that says so by its quorum.
        if self.reducer.is_mean() || (cohort == 0 && plan.quorum == 0) {
            return Ok(());
        }
        let fewest = self.reducer.fewest(cohort);
        if cohort < fewest {
            let problem = self.too_few(cohort, &format!("the cohort has {}", clients_of(cohort)));
            return Err(StrategyError::Plan(problem));
        }
        if let Some(most) = self.reducer.most().filter(|most| cohort > *most) {
            let problem = too_many(most, &format!("the cohort has {}", clients_of(cohort)));
            return Err(StrategyError::Plan(problem));
        }
        plan.quorum = plan.quorum.max(fewest);
        plan.goal = plan.goal.max(plan.quorum);
        let selected = self.reducer.selects(plan.quorum, cohort);
        plan.least_folded = Some(selected.clamp(1, plan.quorum));
        Ok(())
    }

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
        if self.reducer.is_mean() {
            return Ok(());
        }
        if let Some(reason) = self.objective.needs_mean() {
            return Err(format!("its objective goes with the mean alone: {reason}"));
        }
        let goal = limits.goal.map(|goal| goal as usize);
        let quorum = limits.min_updates as usize;
        let size = self.cohort_size(limits, clients);
        let sized = clients.map(|clients| (clients as usize, size));
        // Without a known size, what a rule needs for any cohort.
        let cohort = size.unwrap_or(0);
        let fewest = self.reducer.fewest(cohort);
        if fewest > 1 && !self.sampler.is_sized() {
            return Err(format!(
                "the reducer needs at least {fewest} reports, and its sampler may draw fewer clients: choose another one"
            ));
        }
        if let Some(goal) = goal.filter(|goal| *goal < fewest) {
            let limit = format!("limits.goal (--goal) is {goal}");
            return Err(self.too_few(cohort, &limit));
        }
        if let Some((clients, size)) = sized
            && size.unwrap_or(clients) < fewest
        {
            let size = size.unwrap_or(clients);
            return Err(self.too_few(cohort, &format!("a round asks {}", clients_of(size))));
        }
        if let Some(most) = self.reducer.most().filter(|most| cohort > *most) {
            return Err(too_many(
                most,
                &format!("a round asks {}", clients_of(cohort)),
            ));
        }
        // One is what jobs have that do not say: such a round waits for as many as are needed.
        if quorum > 1 && quorum < fewest {
            let limit = format!("limits.min_updates (--min-updates) is {quorum}");
            return Err(format!(
                "{}: leave it out, or give at least {fewest}",
                self.too_few(cohort, &limit)
            ));
        }
        Ok(())
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
        Ok(aggregation)
    }
}

fn too_many(most: usize, limit: &str) -> String {
    format!("the reducer can take at most {most} reports, and {limit}: choose a smaller fraction")
}

fn clients_of(count: usize) -> String {
    plural(count, "client")
}

#[cfg(test)]
mod tests;
