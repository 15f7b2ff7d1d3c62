//! How the reports of a round become one update: the mean, or a rule that holds although some reports are an attacker's.

mod bulyan;
mod centered_clipping;
mod distances;
mod faults;
mod geometric_median;
mod krum;
mod majority;
mod mean;
mod median;
mod norm_clipping;
mod norms;
#[cfg(test)]
mod tests;
mod trimmed_mean;
mod zeroing;

pub use bulyan::Bulyan;
pub use centered_clipping::CenteredClipping;
pub use distances::Distances;
pub use faults::Faults;
pub use geometric_median::GeometricMedian;
pub use krum::{Krum, MultiKrum};
pub use mean::Mean;
pub use median::Median;
pub use norm_clipping::{Bound, NormClipping};
pub use norms::Norm;
pub use trimmed_mean::TrimmedMean;
pub use zeroing::Zeroing;

use super::{AggregateContext, Counted, NextVersion, Out, Rows, StateSpec, StrategyError};

/// Turns the reports of a round into one update. The default of each method is that of the mean.
///
/// Values are reached by block ([`AggregateContext::scan`], [`BlockReducer`]), so that memory does not grow with clients; nothing
/// depends on the order in which reports arrived.
pub trait Reducer: Send + Sync {
    /// Whether it is the weighted mean, the only one that all client objectives go with.
    fn is_mean(&self) -> bool {
        false
    }

    /// What the coordinator keeps between rounds for it. The names must not be those of other parts' state.
    fn state(&self) -> StateSpec {
        StateSpec::default()
    }

    /// How many attackers it tolerates if this many clients were asked; none if it has no such number.
    fn faults(&self, cohort: usize) -> Option<usize> {
        let _ = cohort;
        None
    }

    /// The fewest reports that it can reduce, if this many clients were asked. A round with fewer is abandoned. 0 if it can do
    /// without any report.
    fn fewest(&self, cohort: usize) -> usize {
        let _ = cohort;
        0
    }

    /// Which parameter makes it need as many reports as it does, such as `f = 4`; none if no parameter does.
    fn because(&self, cohort: usize) -> Option<String> {
        let _ = cohort;
        None
    }

    /// Which parameter to change so that this many reports are enough, such as `f = 3 at most`; none if there is none.
    fn remedy(&self, reports: usize) -> Option<String> {
        let _ = reports;
        None
    }

    /// The most reports that it can reduce; none if there is no such number.
    fn most(&self) -> Option<usize> {
        None
    }

    /// How many of this many reports are in the update if no report is an outlier. Fewer than all if the rule selects some; the
    /// quorum of the round does not count against those that it leaves.
    fn selects(&self, reports: usize, cohort: usize) -> usize {
        let _ = cohort;
        reports
    }

    /// Decides how much each report counts and how blocks are reduced. Called once in an aggregation, before the blocks.
    ///
    /// # Errors
    ///
    /// [`StrategyError`] if the reports can't be reduced. A report that looks like an attacker's is no error: exclude it, with a reason
    /// ([`Counted::exclude`]).
    fn reduce(
        &self,
        round: &AggregateContext<'_>,
        counted: Counted,
        next: &mut NextVersion<'_>,
    ) -> Result<Reduction, StrategyError>;
}

/// How the reports of one round are reduced.
#[non_exhaustive]
pub struct Reduction {
    /// The reports that are left, and how much each counts.
    pub counted: Counted,
    /// What takes the place of their weighted mean; none if it is the update.
    pub rule: Option<Box<dyn BlockReducer>>,
}

impl std::fmt::Debug for Reduction {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Reduction")
            .field("counted", &self.counted)
            .finish_non_exhaustive()
    }
}

impl Reduction {
    /// The weighted mean of these reports.
    pub fn mean(counted: Counted) -> Self {
        Self {
            counted,
            rule: None,
        }
    }

    /// This rule over these reports.
    pub fn by(counted: Counted, rule: impl BlockReducer + 'static) -> Self {
        Self {
            counted,
            rule: Some(Box::new(rule)),
        }
    }
}

/// Reduces one block.
pub trait BlockReducer: Sync {
    /// Called once for each block, of trainable values and of buffers, from several threads. Fill `update`, as long as the block, with
    /// what is added to the model's values; for trainable ones, the server optimizer may change it. Write the reducer's own state
    /// through `out`.
    fn reduce(&self, rows: &Rows<'_>, update: &mut [f64], out: &mut Out<'_>);
}
