//! Leaving out what is much too large: the adaptive zeroing of TensorFlow Federated, with the quantile of Andrew et al.,
//! "Differentially Private Learning with Adaptive Clipping", NeurIPS 2021, <https://arxiv.org/abs/1905.03871>.

use super::{Norm, Reducer, Reduction};
use crate::strategy::{AggregateContext, Counted, NextVersion, StateSpec, StrategyError};

/// The estimate of the quantile, in the strategy's state.
const ESTIMATE: &str = "zeroing_estimate";

/// Leaves out reports that are longer than `multiplier * C + increment`, where `C` follows a quantile of the reports' lengths from
/// round to round: against broken clients, and attackers that send huge updates. TensorFlow Federated counts such a report as
/// zeros with its weight; here it is excluded.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Zeroing {
    /// What is measured.
    pub norm: Norm,
    /// The quantile that `C` follows, from 0 to 1.
    pub quantile: f64,
    /// How fast it does: each round multiplies it by exp(-rate * (share of reports at most C - quantile)).
    pub rate: f64,
    /// `C` in the first round, above 0.
    pub initial: f64,
    /// The factor of the bound, at least 1.
    pub multiplier: f64,
    /// The constant of the bound, at least 0.
    pub increment: f64,
}

impl Default for Zeroing {
    /// As `tff.learning.robust_aggregator`.
    fn default() -> Self {
        Self {
            norm: Norm::Largest,
            quantile: 0.98,
            rate: std::f64::consts::LN_10,
            initial: 10.0,
            multiplier: 2.0,
            increment: 1.0,
        }
    }
}

impl Reducer for Zeroing {
    fn state(&self) -> StateSpec {
        StateSpec::default().number(ESTIMATE, self.initial)
    }

    fn reduce(
        &self,
        round: &AggregateContext<'_>,
        mut counted: Counted,
        next: &mut NextVersion<'_>,
    ) -> Result<Reduction, StrategyError> {
        let norms = self.norm.of(round, &counted.inputs)?;
        let estimate = round.number(ESTIMATE).unwrap_or(self.initial);
        let bound = self.multiplier * estimate + self.increment;
        let too_large = norms.iter().enumerate().filter(|(_, norm)| **norm > bound);
        let hint = if norms.iter().all(|norm| *norm > bound) {
            " (so are all reports of the round, and C does not follow, since such a round changes nothing: raise `initial` or \
             `increment`)"
        } else {
            ""
        };
        let what = match self.norm {
            Norm::L2 => "norm",
            Norm::Largest => "largest value",
        };
        counted.exclude(too_large.map(|(report, norm)| {
            let reason =
                format!("zeroing: its {what} is {norm:.4e}, above the bound of {bound:.4e}{hint}");
            (report, reason)
        }));
        counted.metrics.insert("norm_bound".to_string(), bound);
        if !norms.is_empty() {
            let within = norms.iter().filter(|norm| **norm <= estimate).count();
            let share = within as f64 / norms.len() as f64;
            let moved = estimate * (-self.rate * (share - self.quantile)).exp();
            // A number of the state must be finite, and a bound of 0 could never grow again.
            next.set(
                ESTIMATE,
                moved.clamp(f64::MIN_POSITIVE, f64::from(f32::MAX)),
            );
        }
        Ok(Reduction::mean(counted))
    }
}
