//! No filter.

use super::{Filtered, ReportFilter};
use crate::strategy::{AggregateContext, StrategyError};

/// Leaves out nothing, at no cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Everything;

impl ReportFilter for Everything {
    fn keeps_all(&self) -> bool {
        true
    }

    fn exclude(&self, _: &AggregateContext<'_>) -> Result<Filtered, StrategyError> {
        Ok(Filtered::default())
    }
}
