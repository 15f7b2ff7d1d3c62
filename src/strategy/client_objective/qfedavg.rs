//! q-FedAvg: Li et al., "Fair Resource Allocation in Federated Learning", ICLR 2020, <https://arxiv.org/abs/1905.10497>,
//! algorithm 2.

use std::collections::BTreeMap;

use super::{ClientObjective, Counted};
use crate::{
    objective::Objective,
    parameters::{DType, PayloadSpec, Role},
    report::DELTA,
    statistics::lower_median,
    strategy::{AggregateContext, Inputs, StrategyError},
};

/// The mean loss of a client's examples on the global model, before it trains.
const LOSS: &str = "loss_before";

/// Clients with a higher loss count more: by its power `q`. So the accuracy of clients is more alike; with `q` = 0 it is FedAvg
/// with equal weights.
///
/// With `L` = 1 / lr and the loss `F_k` before training, the next model is this one plus the sum of `L F_k^q delta_k` over the
/// sum of `q F_k^(q-1) |L delta_k|^2 + L F_k^q`. Weights count for buffers alone, as the paper draws clients by size instead.
///
/// Clients report their losses, and one that claims a huge loss would count alone. So a loss counts as at most `max_loss` times the
/// median of the round's losses, which is not in the paper.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct QFedAvg {
    /// The power, at least 0.
    pub q: f64,
    /// The most that a loss counts as, in medians of the round's losses; at least 1.
    pub max_loss: f64,
}

impl QFedAvg {
    /// The most that a loss counts as, unless a job says otherwise.
    pub const MAX_LOSS: f64 = 100.0;

    /// With this power.
    pub fn new(q: f64) -> Self {
        Self {
            q,
            max_loss: Self::MAX_LOSS,
        }
    }
}

impl ClientObjective for QFedAvg {
    fn objective(&self, _: &BTreeMap<String, f64>) -> Objective {
        Objective::Plain
    }

    fn expects(&self) -> Vec<PayloadSpec> {
        vec![PayloadSpec::vector(LOSS, 1, DType::F64)]
    }

    fn check(&self, training: &crate::settings::TrainingSettings) -> Result<(), String> {
        if training.lr == 0.0 {
            return Err("q-FedAvg divides by the learning rate, which must be above 0".to_string());
        }
        Ok(())
    }

    fn count(
        &self,
        round: &AggregateContext<'_>,
        weights: Vec<f64>,
    ) -> Result<Counted, StrategyError> {
        let norms = self.squared_norms(round)?;
        let (mut excluded, mut rows, mut buffers) = (Vec::new(), Vec::new(), Vec::new());
        let (mut denominator, mut total) = (0.0, 0.0);
        let mut losses = Vec::with_capacity(round.reports().len());
        for report in round.reports() {
            losses.push(round.vector(report.client, LOSS)?[0]);
        }
        let proper: Vec<_> = losses
            .iter()
            .copied()
            .filter(|loss| is_proper(*loss))
            .collect();
        let most = self.max_loss * lower_median(&proper);
        let mut bounded = 0;
        for (place, ((report, weight), norm)) in
            round.reports().iter().zip(weights).zip(norms).enumerate()
        {
            let client = report.client;
            let mut loss = losses[place];
            if !is_proper(loss) {
                let reason =
                    format!("says that its loss before training was {loss}: it must be above 0");
                excluded.push((client, reason));
                continue;
            }
            if loss > most {
                loss = most;
                bounded += 1;
            }
            let lipschitz = 1.0 / round.plan().training_of(client).lr;
            let power = loss.powf(self.q);
            rows.push((client, lipschitz * power));
            denominator +=
                self.q * loss.powf(self.q - 1.0) * lipschitz * lipschitz * norm + lipschitz * power;
            buffers.push(weight);
            total += weight;
        }
        let inputs = Inputs::new(DELTA, rows).with_buffers(buffers);
        let mut counted = Counted::new(inputs.over(denominator));
        counted.excluded = excluded;
        counted.total_weight = total;
        if bounded > 0 {
            counted
                .metrics
                .insert("bounded_losses".to_string(), f64::from(bounded));
        }
        Ok(counted)
    }

    fn needs_mean(&self) -> Option<String> {
        Some("q-FedAvg weighs the reports by losses that clients report, which a reducer does not protect".to_string())
    }
}

/// The power of a negative number is none, and 0^(q - 1) is infinite.
fn is_proper(loss: f64) -> bool {
    loss.is_finite() && loss > 0.0
}

impl QFedAvg {
    /// `|delta_k|^2` of each report, over trainable values.
    fn squared_norms(&self, round: &AggregateContext<'_>) -> Result<Vec<f64>, StrategyError> {
        let clients = round.reports().iter().map(|report| (report.client, 1.0));
        let all = Inputs::new(DELTA, clients);
        round.scan(&all, round.reports().len(), &|rows, sums| {
            if rows.role() != Role::Trainable {
                return;
            }
            let mut values = vec![0.0; rows.len()];
            for (row, sum) in sums.iter_mut().enumerate() {
                rows.read(DELTA, row, &mut values);
                for value in &values {
                    *sum += f64::from(*value) * f64::from(*value);
                }
            }
        })
    }
}
