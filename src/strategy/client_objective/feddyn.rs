//! FedDyn: Acar et al., "Federated Learning Based on Dynamic Regularization", ICLR 2021, <https://arxiv.org/abs/2111.04263>,
//! algorithm 1.

use std::collections::BTreeMap;

use super::{BlockRule, ClientObjective, restarts};
use crate::{
    objective::Objective,
    strategy::{AggregateContext, NextVersion, Out, Rows, StateSpec, StateTensor},
};

/// The server's `h`: `-alpha / m` times the sum of all that clients ever moved.
const H: &str = "h";

/// How often `h` and all clients' gradients were set back to zero, since a client had lost its own.
const RESTARTS: &str = "h_restarts";

/// Clients minimize their loss minus `<g_i, w>` plus `alpha / 2 * |w - w_t|^2`, with a gradient `g_i` that each keeps. The next
/// model is the mean of the clients' models minus `h / alpha`.
///
/// If a worker lost the `g_i` of a client, `h` has a part that no `g_i` has: all clients and the server then restart from zeros.
///
/// The paper's mean is one over the cohort (weighting `uniform`). With another weighting, `h` takes that mean, too.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct FedDyn {
    /// The weight of both terms, above 0.
    pub alpha: f64,
}

impl FedDyn {
    /// With this weight of both terms.
    pub fn new(alpha: f64) -> Self {
        Self { alpha }
    }
}

impl ClientObjective for FedDyn {
    fn objective(&self, numbers: &BTreeMap<String, f64>) -> Objective {
        Objective::FedDyn {
            alpha: self.alpha,
            restarts: restarts::count(numbers, RESTARTS),
        }
    }

    fn state(&self) -> StateSpec {
        StateSpec::default()
            .tensor(StateTensor::new(H))
            .number(RESTARTS, 0.0)
    }

    fn begin(&self, round: &AggregateContext<'_>, next: &mut NextVersion<'_>) {
        restarts::note(round, next, RESTARTS);
    }

    fn block_rule(&self) -> Option<&dyn BlockRule> {
        Some(self)
    }

    fn needs_mean(&self) -> Option<String> {
        Some("FedDyn moves its gradient correction by the mean of the reports, which a reducer does not protect".to_string())
    }
}

impl BlockRule for FedDyn {
    fn apply(
        &self,
        round: &AggregateContext<'_>,
        rows: &Rows<'_>,
        update: &mut [f64],
        out: &mut Out<'_>,
    ) {
        if restarts::is_due(round) {
            return out.state(H).fill(0.0);
        }
        let all = round.population().len().max(rows.count()).max(1) as f64;
        let share = rows.count() as f64 / all;
        for (h, update) in out.state(H).iter_mut().zip(update) {
            // h -= alpha / m * the sum over the cohort, which is the mean times its size.
            let next = (f64::from(*h) - self.alpha * share * *update) as f32;
            *h = next;
            *update -= f64::from(next) / self.alpha;
        }
    }
}
