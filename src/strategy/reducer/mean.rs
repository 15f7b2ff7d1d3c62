//! The weighted mean.

use super::{Reducer, Reduction};
use crate::strategy::{AggregateContext, Counted, NextVersion, StrategyError};

/// The weighted mean of the reports: one attacker can move it anywhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mean;

impl Reducer for Mean {
    fn is_mean(&self) -> bool {
        true
    }

    fn reduce(
        &self,
        _: &AggregateContext<'_>,
        counted: Counted,
        _: &mut NextVersion<'_>,
    ) -> Result<Reduction, StrategyError> {
        Ok(Reduction::mean(counted))
    }
}
