//! Bulyan: El Mhamdi et al., "The Hidden Vulnerability of Distributed Learning in Byzantium", ICML 2018,
//! <https://arxiv.org/abs/1802.07927>.

use super::{BlockReducer, Distances, Faults, Reducer, Reduction, krum};
use crate::{
    report::DELTA,
    strategy::{AggregateContext, Counted, NextVersion, Out, Rows, StrategyError},
};

/// Picks n - 2f reports one by one with Krum; then, for each value, the mean of the n - 4f picked ones that are closest to their
/// median. Weights do not count. Needs 4f + 3 reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bulyan(Faults);

impl Bulyan {
    /// Tolerates this many attackers.
    pub fn new(faults: Faults) -> Self {
        Self(faults)
    }
}

impl Reducer for Bulyan {
    fn faults(&self, cohort: usize) -> Option<usize> {
        Some(self.0.of(cohort, 4, 3))
    }

    fn fewest(&self, cohort: usize) -> usize {
        self.0.fewest(cohort, 4, 3)
    }

    fn because(&self, cohort: usize) -> Option<String> {
        self.0.because(cohort, 4, 3)
    }

    fn remedy(&self, reports: usize) -> Option<String> {
        Faults::remedy(reports, 4, 3)
    }

    fn selects(&self, reports: usize, cohort: usize) -> usize {
        reports.saturating_sub(2 * self.0.of(cohort, 4, 3)).max(1)
    }

    fn most(&self) -> Option<usize> {
        Some(Distances::MOST)
    }

    fn reduce(
        &self,
        round: &AggregateContext<'_>,
        mut counted: Counted,
        _: &mut NextVersion<'_>,
    ) -> Result<Reduction, StrategyError> {
        let reports = counted.inputs.clients().len();
        let cohort = round.plan().cohort_size();
        let faults = self.0.checked("Bulyan", reports, cohort, 4, 3)?;
        Faults::record(faults, &mut counted);
        let distances = Distances::new(round, &counted.inputs)?;
        let left = left_over(round, &distances, reports - 2 * faults, faults)?;
        counted.exclude(left.into_iter().map(|report| {
            let reason =
                "Bulyan: the reports that were picked are closer to each other".to_string();
            (report, reason)
        }));
        Ok(Reduction::by(counted, Around(reports - 4 * faults)))
    }
}

/// The reports that are left when this many were picked, each by Krum among those that were left before.
fn left_over(
    round: &AggregateContext<'_>,
    distances: &Distances,
    picks: usize,
    faults: usize,
) -> Result<Vec<usize>, StrategyError> {
    // Sorted once: scores are computed again for each pick, and sorting takes as long as all the rest.
    let neighbours = krum::Neighbours::new(distances);
    let mut is_left = vec![true; distances.count()];
    for _ in 0..picks {
        round.check_cancelled()?;
        let scores = neighbours.scores(&is_left, faults);
        is_left[krum::by_score(&scores)[0]] = false;
    }
    let left = (0..distances.count()).filter(|report| is_left[*report]);
    Ok(left.collect())
}

/// How many values around the median are in the mean.
struct Around(usize);

impl BlockReducer for Around {
    fn reduce(&self, rows: &Rows<'_>, update: &mut [f64], _: &mut Out<'_>) {
        rows.mean_around_median(DELTA, self.0, update);
    }
}
