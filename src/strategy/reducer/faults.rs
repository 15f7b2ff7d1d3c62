//! How many attackers a rule must tolerate.

use crate::strategy::{Counted, StrategyError};

/// The share of the cohort that is taken for attackers unless a number is given.
const SHARE: f64 = 0.2;

/// How many of the clients that are asked may be attackers: `f` of the papers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults(Option<usize>);

impl Faults {
    /// A fifth of the cohort, rounded down; fewer if the rule can't tolerate as many.
    pub fn usual() -> Self {
        Self(None)
    }

    /// This many.
    pub fn exactly(count: usize) -> Self {
        Self(Some(count))
    }

    /// The number for a cohort, if a rule needs `factor * f + constant` reports.
    pub(super) fn of(self, cohort: usize, factor: usize, constant: usize) -> usize {
        let usual = (cohort as f64 * SHARE) as usize;
        let most = cohort.saturating_sub(constant) / factor;
        self.0.unwrap_or(usual.min(most))
    }

    /// The fewest reports that such a rule needs.
    pub(super) fn fewest(self, cohort: usize, factor: usize, constant: usize) -> usize {
        let faults = self.of(cohort, factor, constant);
        faults.saturating_mul(factor).saturating_add(constant)
    }

    /// The number in words, if it is above 0.
    pub(super) fn because(self, cohort: usize, factor: usize, constant: usize) -> Option<String> {
        let faults = self.of(cohort, factor, constant);
        (faults > 0).then(|| format!("f = {faults}"))
    }

    /// The numbers with which this many reports are enough, in words.
    pub(super) fn remedy(reports: usize, factor: usize, constant: usize) -> Option<String> {
        let most = reports.checked_sub(constant)? / factor;
        Some(format!("f = {most} at most"))
    }

    /// Puts the number into the round's record: without one in the job, it follows from the cohort.
    pub(super) fn record(faults: usize, counted: &mut Counted) {
        counted.metrics.insert("f".to_string(), faults as f64);
    }

    /// The number, if there are enough reports for it.
    pub(super) fn checked(
        self,
        rule: &str,
        reports: usize,
        cohort: usize,
        factor: usize,
        constant: usize,
    ) -> Result<usize, StrategyError> {
        let faults = self.of(cohort, factor, constant);
        let fewest = self.fewest(cohort, factor, constant);
        if reports >= fewest {
            return Ok(faults);
        }
        Err(StrategyError::Aggregate(format!(
            "{rule} needs {fewest} reports if f is {faults}, and {reports} came"
        )))
    }
}
