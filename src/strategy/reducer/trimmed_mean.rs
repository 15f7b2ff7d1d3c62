//! The coordinate-wise trimmed mean: Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", ICML
//! 2018, <https://arxiv.org/abs/1803.01498>, definition 2.

use super::{BlockReducer, Faults, Reducer, Reduction};
use crate::{
    report::DELTA,
    strategy::{AggregateContext, Counted, NextVersion, Out, Rows, StrategyError},
};

/// The mean of the reports without the `f` smallest and the `f` largest, for each value. Weights do not count. Needs 2f + 1 reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrimmedMean(Faults);

impl TrimmedMean {
    /// Tolerates this many attackers.
    pub fn new(faults: Faults) -> Self {
        Self(faults)
    }
}

impl Reducer for TrimmedMean {
    fn faults(&self, cohort: usize) -> Option<usize> {
        Some(self.0.of(cohort, 2, 1))
    }

    fn fewest(&self, cohort: usize) -> usize {
        self.0.fewest(cohort, 2, 1)
    }

    fn because(&self, cohort: usize) -> Option<String> {
        self.0.because(cohort, 2, 1)
    }

    fn remedy(&self, reports: usize) -> Option<String> {
        Faults::remedy(reports, 2, 1)
    }

    fn reduce(
        &self,
        round: &AggregateContext<'_>,
        mut counted: Counted,
        _: &mut NextVersion<'_>,
    ) -> Result<Reduction, StrategyError> {
        let (reports, cohort) = (counted.inputs.clients().len(), round.plan().cohort_size());
        let trim = self.0.checked("the trimmed mean", reports, cohort, 2, 1)?;
        Faults::record(trim, &mut counted);
        Ok(Reduction::by(counted, Trim(trim)))
    }
}

/// How many values are left out at each end.
struct Trim(usize);

impl BlockReducer for Trim {
    fn reduce(&self, rows: &Rows<'_>, update: &mut [f64], _: &mut Out<'_>) {
        rows.trimmed_mean(DELTA, self.0, update);
    }
}
