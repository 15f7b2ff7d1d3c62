//! The coordinate-wise median: Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", ICML 2018,
//! <https://arxiv.org/abs/1803.01498>, definition 1.

use super::{BlockReducer, Reducer, Reduction, majority};
use crate::{
    report::DELTA,
    strategy::{AggregateContext, Counted, NextVersion, Out, Rows, StrategyError},
};

/// The median of the reports, for each value; of an even number, the mean of the middle two. Weights do not count. It holds as long
/// as fewer than half of the reports are attackers'.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Median;

impl Reducer for Median {
    fn faults(&self, cohort: usize) -> Option<usize> {
        Some(majority::faults(cohort))
    }

    fn reduce(
        &self,
        _: &AggregateContext<'_>,
        counted: Counted,
        _: &mut NextVersion<'_>,
    ) -> Result<Reduction, StrategyError> {
        Ok(Reduction::by(counted, Self))
    }
}

impl BlockReducer for Median {
    fn reduce(&self, rows: &Rows<'_>, update: &mut [f64], _: &mut Out<'_>) {
        rows.median(DELTA, update);
    }
}
