//! Clipping of norms: Sun et al., "Can You Really Backdoor Federated Learning?", 2019, <https://arxiv.org/abs/1911.07963>.

use super::{Norm, Reducer, Reduction, majority};
use crate::{
    statistics::median,
    strategy::{AggregateContext, Counted, NextVersion, StrategyError},
};

/// Reports that are longer than a bound are scaled down to it, and then averaged by weight. It takes the power from attackers that
/// send large updates, and from no others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormClipping(Bound);

/// The longest that a report may be.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Bound {
    /// This Euclidean norm, above 0.
    Fixed(f64),
    /// The median of the round's norms, times this, above 0.
    OfMedian(f64),
}

impl NormClipping {
    /// With this bound.
    pub fn new(bound: Bound) -> Self {
        Self(bound)
    }
}

impl Reducer for NormClipping {
    fn faults(&self, cohort: usize) -> Option<usize> {
        Some(majority::faults(cohort))
    }

    fn reduce(
        &self,
        round: &AggregateContext<'_>,
        mut counted: Counted,
        _: &mut NextVersion<'_>,
    ) -> Result<Reduction, StrategyError> {
        let norms = Norm::L2.of(round, &counted.inputs)?;
        let bound = match self.0 {
            Bound::Fixed(bound) => bound,
            Bound::OfMedian(factor) => factor * median(&norms),
        };
        let total = counted.inputs.total();
        let mut clipped = 0;
        let mut coefficients = counted.inputs.coefficients();
        for (coefficient, norm) in coefficients.iter_mut().zip(&norms) {
            // Not where both are 0, which has no ratio.
            if *norm > bound {
                *coefficient *= bound / norm;
                clipped += 1;
            }
        }
        counted.inputs = counted.inputs.with_coefficients(coefficients).over(total);
        counted.metrics.insert("norm_bound".to_string(), bound);
        counted
            .metrics
            .insert("clipped".to_string(), f64::from(clipped));
        Ok(Reduction::mean(counted))
    }
}
