//! How much a report counts.

mod capped;
mod examples;
mod uniform;

pub use capped::Capped;
pub use examples::Examples;
pub use uniform::Uniform;

use super::AggregateContext;
use crate::report::ReportMetadata;

/// Says how much each report counts in the mean.
pub trait Weighting: Send + Sync {
    /// The weight of a report: a finite number that is not negative.
    fn weight(&self, report: &ReportMetadata) -> f64;

    /// The weights of all reports of a round, in client order. Without an implementation: [`Weighting::weight`] of each.
    fn weights(&self, round: &AggregateContext<'_>) -> Vec<f64> {
        let reports = round.reports().iter();
        reports
            .map(|report| self.weight(&report.metadata))
            .collect()
    }
}
