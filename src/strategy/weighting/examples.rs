//! By the amount of data.

use super::Weighting;
use crate::report::ReportMetadata;

/// The number of examples that the client trained on: FedAvg as published (McMahan et al. 2017).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Examples;

impl Weighting for Examples {
    fn weight(&self, report: &ReportMetadata) -> f64 {
        report.examples as f64
    }
}
