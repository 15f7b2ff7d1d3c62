//! The geometric median: Pillutla et al., "Robust Aggregation for Federated Learning", IEEE TSP 2022,
//! <https://arxiv.org/abs/1912.13445>, algorithm 2 (the smoothed Weiszfeld algorithm).

use super::{Distances, Reducer, Reduction};
use crate::strategy::{AggregateContext, Counted, NextVersion, StrategyError};

/// The weighted mean whose weights are divided by each report's distance to it, some times over (RFA): what is far away counts
/// little. It holds as long as attackers have less than half of the weight.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct GeometricMedian {
    /// How many times the weights are divided, at least 1; the paper has 3, since each is an exchange with the clients there. Here
    /// values are read once for any number, and reports that are a thousand times too long need more.
    pub iterations: u32,
    /// The least distance that a weight is divided by, above 0.
    pub smoothing: f64,
}

impl Default for GeometricMedian {
    fn default() -> Self {
        Self {
            iterations: 20,
            smoothing: 1e-6,
        }
    }
}

impl Reducer for GeometricMedian {
    fn most(&self) -> Option<usize> {
        Some(Distances::MOST)
    }

    fn reduce(
        &self,
        round: &AggregateContext<'_>,
        mut counted: Counted,
        _: &mut NextVersion<'_>,
    ) -> Result<Reduction, StrategyError> {
        let distances = Distances::new(round, &counted.inputs)?;
        let weights = shares(counted.inputs.coefficients());
        let mut coefficients = weights.clone();
        for _ in 0..self.iterations {
            let lengths = distances.to_sum(&coefficients);
            for (place, coefficient) in coefficients.iter_mut().enumerate() {
                *coefficient = weights[place] / lengths[place].max(self.smoothing);
            }
            coefficients = shares(coefficients);
        }
        counted.inputs = counted.inputs.with_coefficients(coefficients);
        Ok(Reduction::mean(counted))
    }
}

/// The same, adding up to 1.
pub(super) fn shares(weights: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut shares: Vec<f64> = weights.into_iter().collect();
    let total: f64 = shares.iter().sum();
    for share in &mut shares {
        *share /= total;
    }
    shares
}
