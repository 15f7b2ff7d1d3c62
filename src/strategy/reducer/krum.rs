//! Krum and Multi-Krum: Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS 2017,
//! <https://arxiv.org/abs/1703.02757>.

use super::{Distances, Faults, Reducer, Reduction};
use crate::strategy::{AggregateContext, Counted, NextVersion, StrategyError};

/// The one report that is closest to its neighbours: that with the least sum of squared distances to the n - f - 2 nearest
/// others. Needs 2f + 3 reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Krum(Faults);

impl Krum {
    /// Stands this many attackers.
    pub fn new(faults: Faults) -> Self {
        Self(faults)
    }
}

impl Reducer for Krum {
    fn fewest(&self, cohort: usize) -> usize {
        self.0.fewest(cohort, 2, 3)
    }

    fn selects(&self, _: usize, _: usize) -> usize {
        1
    }

    fn reduce(
        &self,
        round: &AggregateContext<'_>,
        counted: Counted,
        _: &mut NextVersion<'_>,
    ) -> Result<Reduction, StrategyError> {
        select("Krum", self.0, |_, _| 1, round, counted)
    }
}

/// The weighted mean of the n - f reports, or of as many as are given, that are closest to their neighbours by Krum's measure. Needs
/// 2f + 3 reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MultiKrum {
    faults: Faults,
    select: Option<usize>,
}

impl MultiKrum {
    /// Stands this many attackers.
    pub fn new(faults: Faults) -> Self {
        Self {
            faults,
            select: None,
        }
    }

    /// The same with this many reports in the mean; at most as many as there are.
    pub fn selecting(mut self, reports: usize) -> Self {
        self.select = Some(reports.max(1));
        self
    }

    fn selected(&self, reports: usize, faults: usize) -> usize {
        let usual = reports.saturating_sub(faults).max(1);
        self.select.unwrap_or(usual).min(reports)
    }
}

impl Reducer for MultiKrum {
    fn fewest(&self, cohort: usize) -> usize {
        self.faults.fewest(cohort, 2, 3)
    }

    fn selects(&self, reports: usize, cohort: usize) -> usize {
        self.selected(reports, self.faults.of(cohort, 2, 3))
    }

    fn reduce(
        &self,
        round: &AggregateContext<'_>,
        counted: Counted,
        _: &mut NextVersion<'_>,
    ) -> Result<Reduction, StrategyError> {
        let selected = |reports, faults| self.selected(reports, faults);
        select("Multi-Krum", self.faults, selected, round, counted)
    }
}

/// The mean of the reports with the least scores.
fn select(
    rule: &str,
    faults: Faults,
    selected: impl Fn(usize, usize) -> usize,
    round: &AggregateContext<'_>,
    mut counted: Counted,
) -> Result<Reduction, StrategyError> {
    let reports = counted.inputs.clients().len();
    let faults = faults.checked(rule, reports, round.plan().cohort_size(), 2, 3)?;
    let distances = Distances::new(round, &counted.inputs)?;
    let all: Vec<_> = (0..reports).collect();
    let scores = scores(&distances, &all, faults);
    let order = by_score(&scores);
    let selected = selected(reports, faults);
    // The last one that is selected.
    let bound = scores[order[selected - 1]];
    counted.exclude(order[selected..].iter().map(|report| {
        let score = scores[*report];
        let reason =
            format!("{rule}: its score is {score:.4e}, and {bound:.4e} was the last one selected");
        (*report, reason)
    }));
    Ok(Reduction::mean(counted))
}

/// The sum of the squared distances of each of these reports to its nearest others among them: as many as there are, less `faults`
/// and 2, and at least one.
pub(super) fn scores(distances: &Distances, among: &[usize], faults: usize) -> Vec<f64> {
    let neighbours = among.len().saturating_sub(faults + 2).max(1);
    let mut scores = Vec::with_capacity(among.len());
    let mut others = Vec::with_capacity(among.len());
    for report in among {
        others.clear();
        for other in among.iter().filter(|other| *other != report) {
            others.push(distances.squared(*report, *other));
        }
        // Sorted, so that the sum does not depend on who reported what.
        others.sort_unstable_by(f64::total_cmp);
        scores.push(others.iter().take(neighbours).sum());
    }
    scores
}

/// The places of the scores, from the least to the largest; of equals, the first one first.
pub(super) fn by_score(scores: &[f64]) -> Vec<usize> {
    let mut order: Vec<_> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]));
    order
}
