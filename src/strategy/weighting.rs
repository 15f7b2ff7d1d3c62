//! How much a report counts.

use serde::{Deserialize, Serialize};

use crate::report::ReportMetadata;

/// A client's factor in the mean: `examples` is the number of examples that it trained on, `uniform` one for each client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub enum Weighting {
    /// The number of examples it trained on: FedAvg as published.
    #[default]
    Examples,
    /// One for each client; its data does not count.
    Uniform,
}

impl Weighting {
    /// The weight of a report, not negative.
    pub fn weight(self, report: &ReportMetadata) -> f64 {
        match self {
            Self::Examples => report.examples as f64,
            Self::Uniform => 1.0,
        }
    }
}
