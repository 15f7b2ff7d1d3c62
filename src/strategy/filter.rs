//! Which reports of a round are left out before anything else is done with them: a bound that holds whatever the other parts are.

mod everything;
mod max_norm;
#[cfg(test)]
mod tests;

pub use everything::Everything;
pub use max_norm::MaxNorm;

use super::{AggregateContext, StrategyError};
use crate::ids::ClientId;

/// Leaves out reports before they are weighed, counted and reduced. To all other parts, it is as if the reports that are left out
/// had never been accepted; so a filter goes with every objective and every reducer. The quorum counts what is left.
pub trait ReportFilter: Send + Sync {
    /// Whether it leaves out nothing, whatever the reports are.
    fn keeps_all(&self) -> bool {
        false
    }

    /// The reports to leave out, each with the reason, in rising order of clients. Called once in an aggregation. Values are
    /// reached by block alone ([`AggregateContext::scan`]).
    ///
    /// # Errors
    ///
    /// [`StrategyError`] if the reports can't be looked at. A report that looks like an attacker's is no error.
    fn exclude(&self, round: &AggregateContext<'_>) -> Result<Filtered, StrategyError>;
}

/// What a filter leaves out.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Filtered {
    /// The clients whose reports are left out, in rising order, and why.
    pub excluded: Vec<(ClientId, String)>,
    /// Measurements for the round's record, by name.
    pub metrics: Vec<(String, f64)>,
}
