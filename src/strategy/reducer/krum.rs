//! Krum and Multi-Krum: Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS 2017,
//! <https://arxiv.org/abs/1703.02757>.

use super::{Distances, Faults, Reducer, Reduction};
use crate::strategy::{AggregateContext, Counted, NextVersion, StrategyError};

/// The one report that is closest to its neighbours: that with the least sum of squared distances to the n - f - 2 nearest
/// others. Needs 2f + 3 reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Krum(Faults);

impl Krum {
    /// Tolerates this many attackers.
    pub fn new(faults: Faults) -> Self {
        Self(faults)
    }
}

impl Reducer for Krum {
    fn faults(&self, cohort: usize) -> Option<usize> {
        Some(self.0.of(cohort, 2, 3))
    }

    fn fewest(&self, cohort: usize) -> usize {
        self.0.fewest(cohort, 2, 3)
    }

    fn because(&self, cohort: usize) -> Option<String> {
        self.0.because(cohort, 2, 3)
    }

    fn remedy(&self, reports: usize) -> Option<String> {
        Faults::remedy(reports, 2, 3)
    }

    fn selects(&self, _: usize, _: usize) -> usize {
        1
    }

    fn most(&self) -> Option<usize> {
        Some(Distances::MOST)
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
    /// Tolerates this many attackers.
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
    fn faults(&self, cohort: usize) -> Option<usize> {
        let faults = self.faults.of(cohort, 2, 3);
        // More attackers than reports that are left out: some are in the mean for certain.
        let left_out = cohort.saturating_sub(self.selected(cohort, faults));
        Some(faults.min(left_out))
    }

    fn fewest(&self, cohort: usize) -> usize {
        let fewest = self.faults.fewest(cohort, 2, 3);
        fewest.max(self.select.unwrap_or(0))
    }

    fn because(&self, cohort: usize) -> Option<String> {
        let faults = self.faults.of(cohort, 2, 3);
        match self.select {
            Some(select)
                if select > self.faults.fewest(cohort, 2, 3) || select + faults > cohort =>
            {
                Some(format!("select = {select}"))
            }
            _ => self.faults.because(cohort, 2, 3),
        }
    }

    fn remedy(&self, reports: usize) -> Option<String> {
        let faults = self.faults.of(reports, 2, 3);
        let mut words = Vec::new();
        if self.faults.fewest(reports, 2, 3) > reports {
            words.extend(Faults::remedy(reports, 2, 3));
        }
        if self.select.is_some_and(|select| select > reports) {
            let most = reports.saturating_sub(faults).max(1);
            words.push(format!("select = {most} at most"));
        }
        (!words.is_empty()).then(|| words.join(" and "))
    }

    fn selects(&self, reports: usize, cohort: usize) -> usize {
        self.selected(reports, self.faults.of(cohort, 2, 3))
    }

    fn most(&self) -> Option<usize> {
        Some(Distances::MOST)
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
    Faults::record(faults, &mut counted);
    let distances = Distances::new(round, &counted.inputs)?;
    let scores = Neighbours::new(&distances).scores(&vec![true; reports], faults);
    let order = by_score(&scores);
    let selected = selected(reports, faults);
    // The last one that is selected.
    let bound = scores[order[selected - 1]];
    counted.exclude(order[selected..].iter().map(|report| {
        let score = scores[*report];
        let reason =
            format!("{rule}: the sum of its squared distances to its neighbours is {score:.4e}, and at most {bound:.4e} was selected");
        (*report, reason)
    }));
    Ok(Reduction::mean(counted))
}

/// Each report's others, the nearest one first.
pub(super) struct Neighbours(Vec<Vec<(f64, usize)>>);

impl Neighbours {
    pub fn new(distances: &Distances) -> Self {
        let mut all = Vec::with_capacity(distances.count());
        for report in 0..distances.count() {
            let mut others = Vec::with_capacity(distances.count());
            for other in (0..distances.count()).filter(|other| *other != report) {
                others.push((distances.squared(report, other), other));
            }
            // By distance alone, so that a sum of the first ones does not depend on who reported what.
            others.sort_by(|a, b| a.0.total_cmp(&b.0));
            all.push(others);
        }
        Self(all)
    }

    /// The others of each report, with their squared distances.
    pub fn each(&self) -> impl Iterator<Item = &[(f64, usize)]> {
        self.0.iter().map(Vec::as_slice)
    }

    /// The sum of the squared distances of each report that is left to its nearest others that are left: as many as are left, less
    /// `faults` and 2, and at least one. Infinite for those that are not left.
    pub fn scores(&self, is_left: &[bool], faults: usize) -> Vec<f64> {
        let left = is_left.iter().filter(|is_left| **is_left).count();
        let nearest = left.saturating_sub(faults + 2).max(1);
        let mut scores = vec![f64::INFINITY; self.0.len()];
        for (report, others) in self
            .0
            .iter()
            .enumerate()
            .filter(|(report, _)| is_left[*report])
        {
            let others = others.iter().filter(|(_, other)| is_left[*other]);
            scores[report] = others.take(nearest).map(|(squared, _)| squared).sum();
        }
        scores
    }
}

/// The places of the scores, from the least to the largest; of equals, the first one first.
pub(super) fn by_score(scores: &[f64]) -> Vec<usize> {
    let mut order: Vec<_> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]));
    order
}
