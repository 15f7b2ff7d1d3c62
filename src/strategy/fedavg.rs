//! Federated averaging: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data",
//! AISTATS 2017, <https://arxiv.org/abs/1602.05629>, algorithm 1.

use super::{
    AggregateContext, Aggregation, FederatedStrategy, Inputs, NextVersion, RoundContext, RoundPlan,
    StrategyError, UniformSampler, Weighting,
};
use crate::report::DELTA;

/// The next global model is this one plus the weighted mean of the clients' deltas, which is the weighted mean of
/// their models.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct FedAvg {
    /// Who takes part.
    pub sampler: UniformSampler,
    /// How much each report counts.
    pub weighting: Weighting,
}

impl FedAvg {
    /// With this sampler and this weighting.
    pub fn new(sampler: UniformSampler, weighting: Weighting) -> Self {
        Self { sampler, weighting }
    }

    /// The delta of each report, weighted.
    pub fn inputs(&self, round: &AggregateContext<'_>) -> Inputs {
        let mut rows = Vec::with_capacity(round.reports().len());
        for report in round.reports() {
            rows.push((report.client, self.weighting.weight(&report.metadata)));
        }
        Inputs::new(DELTA, rows)
    }
}

impl FederatedStrategy for FedAvg {
    fn plan(&self, round: &RoundContext<'_>) -> Result<RoundPlan, StrategyError> {
        self.sampler.plan(round)
    }

    fn aggregate(
        &self,
        round: &AggregateContext<'_>,
        next: &mut NextVersion<'_>,
    ) -> Result<Aggregation, StrategyError> {
        let inputs = self.inputs(round);
        next.fold(&inputs, &|rows, out| out.add_mean(rows, DELTA))?;
        Ok(Aggregation::new(inputs.clients(), inputs.total()))
    }
}
