//! By the amount of data, up to a limit.

use super::Weighting;
use crate::report::ReportMetadata;

/// The number of examples that the client trained on, and at most `cap`: no client with much data, or that claims to have it,
/// outweighs the others (McMahan et al. 2018, "Learning Differentially Private Recurrent Language Models").
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Capped {
    /// The most that a report counts, above 0.
    pub cap: f64,
}

impl Capped {
    /// At most this.
    pub fn new(cap: f64) -> Self {
        Self { cap }
    }
}

impl Weighting for Capped {
    fn weight(&self, report: &ReportMetadata) -> f64 {
        (report.examples as f64).min(self.cap)
    }
}
