//! Federated averaging: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data",
//! AISTATS 2017, <https://arxiv.org/abs/1602.05629>, algorithm 1.

use super::{
    Aggregation, FederatedStrategy, RoundContext, RoundPlan, RoundRng, StrategyError,
    StrategyState, UniformSampler, Weighting, weighted_mean,
};
use crate::{
    parameters::{BlockReader, BlockWriter},
    report::{DELTA, Report, Reports},
};

/// The next global model is this one plus the weighted mean of the clients' deltas, which is the weighted mean of
/// their models.
#[derive(Debug, Clone, Default)]
pub struct FedAvg {
    /// Who takes part.
    pub sampler: UniformSampler,
    /// How much each report counts.
    pub weighting: Weighting,
}

impl FederatedStrategy for FedAvg {
    fn plan(
        &mut self,
        round: &RoundContext<'_>,
        rng: &mut RoundRng,
    ) -> Result<RoundPlan, StrategyError> {
        self.sampler.plan(round, rng)
    }

    fn aggregate(
        &mut self,
        global: &dyn BlockReader,
        reports: &Reports<'_>,
        next: &mut dyn BlockWriter,
    ) -> Result<Aggregation, StrategyError> {
        let weights: Vec<f64> = reports
            .iter()
            .map(|report| self.weighting.weight(&report.metadata))
            .collect();
        let total_weight = weighted_mean(global, reports, DELTA, &weights, next)?;
        let losses: Option<Vec<f64>> = reports
            .iter()
            .map(|report: &Report| report.metadata.train_loss())
            .collect();
        let train_loss = losses.map(|losses| {
            losses
                .iter()
                .zip(&weights)
                .map(|(loss, weight)| loss * weight)
                .sum::<f64>()
                / total_weight
        });
        let folded = reports.iter().map(|report| report.client);
        let mut aggregation = Aggregation::new(folded, total_weight);
        if let Some(train_loss) = train_loss {
            let name = "train_loss".to_string();
            aggregation.metrics.insert(name, train_loss);
        }
        Ok(aggregation)
    }

    fn export_state(&self) -> StrategyState {
        StrategyState::default()
    }

    fn import_state(&mut self, state: StrategyState) -> Result<(), StrategyError> {
        match state.is_empty() {
            true => Ok(()),
            false => Err(StrategyError::State("FedAvg keeps none".to_string())),
        }
    }
}
