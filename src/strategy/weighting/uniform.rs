//! All clients alike.

use super::Weighting;
use crate::report::ReportMetadata;

/// One for each client; the amount of its data does not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Uniform;

impl Weighting for Uniform {
    fn weight(&self, _: &ReportMetadata) -> f64 {
        1.0
    }
}
