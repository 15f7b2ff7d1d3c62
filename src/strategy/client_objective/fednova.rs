//! FedNova: Wang et al., "Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization", NeurIPS 2020,
//! <https://arxiv.org/abs/2007.07481>.

use std::collections::BTreeMap;

use super::{ClientObjective, Counted};
use crate::{
    objective::Objective,
    report::DELTA,
    settings::TrainingSettings,
    strategy::{AggregateContext, Inputs, StrategyError},
};

/// Each delta is divided by how far its client's optimizer takes it in its number of steps, and the mean is scaled by the mean of
/// that: clients that take more steps pull no harder. Clients minimize their loss, plus FedProx's term if `mu` is above 0.
///
/// How far a client's optimizer takes it is [`TrainingSettings::reach`]; with a proximal term, `(1 - (1 - lr mu)^n) / (lr mu)`
/// (section 4 of the paper).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct FedNova {
    /// The weight of the proximal term, at least 0.
    pub mu: f64,
}

impl FedNova {
    /// With this weight of a proximal term.
    pub fn new(mu: f64) -> Self {
        Self { mu }
    }

    /// `|a_i|`, the sum of what each gradient of `steps` steps counts in a client's delta.
    fn reach(&self, training: &TrainingSettings, steps: u64) -> f64 {
        if self.mu > 0.0 {
            let steps = steps as f64;
            let pull = training.lr * self.mu;
            // The limit for a pull of 0, which a learning rate of 0 makes.
            if pull == 0.0 {
                return steps;
            }
            return (1.0 - (1.0 - pull).powf(steps)) / pull;
        }
        training.reach(steps)
    }
}

impl ClientObjective for FedNova {
    fn objective(&self, numbers: &BTreeMap<String, f64>) -> Objective {
        super::Proximal::new(self.mu).objective(numbers)
    }

    fn check(&self, training: &TrainingSettings) -> Result<(), String> {
        training
            .check_reach()
            .map_err(|problem| format!("FedNova: {problem}"))?;
        if self.mu > 0.0 && training.momentum > 0.0 {
            let problem = "FedNova's formula has either a momentum or a proximal term: set training.momentum or strategy.mu to 0";
            return Err(problem.to_string());
        }
        if self.mu * training.lr >= 1.0 {
            let problem = "FedNova needs lr * mu below 1: choose a smaller strategy.mu";
            return Err(problem.to_string());
        }
        Ok(())
    }

    fn count(
        &self,
        round: &AggregateContext<'_>,
        weights: Vec<f64>,
    ) -> Result<Counted, StrategyError> {
        let mut excluded = Vec::new();
        let mut rows = Vec::new();
        for (report, weight) in round.reports().iter().zip(weights) {
            let training = round.plan().training_of(report.client);
            let reach = self.reach(training, report.metadata.steps);
            if reach > 0.0 {
                rows.push((report.client, weight, reach));
            } else {
                let reason = format!("says that it trained in {} steps", report.metadata.steps);
                excluded.push((report.client, reason));
            }
        }
        let total: f64 = rows.iter().map(|(_, weight, _)| weight).sum();
        let mut mean_reach = 0.0;
        for (_, weight, reach) in &rows {
            mean_reach += weight / total * reach;
        }
        // The next model is this one plus mean_reach * sum of weight / total * delta / reach.
        let coefficients = rows
            .iter()
            .map(|(client, weight, reach)| (*client, weight * mean_reach / reach));
        let inputs = Inputs::new(DELTA, coefficients)
            .with_buffers(rows.iter().map(|(_, weight, _)| *weight))
            .over(total);
        let mut counted = Counted::new(inputs);
        counted.excluded = excluded;
        counted.total_weight = total;
        if !rows.is_empty() {
            counted
                .metrics
                .insert("effective_steps".to_string(), mean_reach);
        }
        Ok(counted)
    }

    fn needs_mean(&self) -> Option<String> {
        Some("FedNova normalizes the mean by the local steps that clients report, which a reducer does not protect".to_string())
    }
}
