//! Who takes part in a round.

mod by_capacity;
mod by_size;
mod cohort;
mod poisson;
mod round_robin;
#[cfg(test)]
mod tests;
mod uniform;
mod weighted;

pub use by_capacity::ByCapacity;
pub use by_size::BySize;
pub use cohort::{Cohort, CohortSize};
pub use poisson::Poisson;
pub use round_robin::RoundRobin;
pub use uniform::Uniform;

use super::{RoundContext, StrategyError};
use crate::settings::RoundLimits;

/// Chooses the clients of a round: a function of the round, with all randomness from
/// [`RoundContext::rng`].
pub trait Sampler: Send + Sync {
    /// The cohort of a round, out of the context's clients.
    ///
    /// # Errors
    ///
    /// [`StrategyError::Plan`] if no cohort can be made of them: the round is abandoned.
    fn sample(&self, round: &RoundContext<'_>) -> Result<Cohort, StrategyError>;

    /// Whether rounds have as many clients as the job's settings say. If not, a round may have too few for a reducer that needs some.
    fn is_sized(&self) -> bool {
        true
    }

    /// How many of this many clients it asks in each round, given the job's goal and quorum; the fewest, if rounds differ; none if that
    /// is not known. A reducer that needs more is then refused when the job is submitted.
    fn size(&self, clients: usize, goal: Option<usize>, quorum: usize) -> Option<usize> {
        let _ = (clients, goal, quorum);
        None
    }

    /// Checks the job's limits: a sampler that says itself how many reports are enough refuses a goal or a quorum that it would pass
    /// over. Called when a job is submitted.
    ///
    /// # Errors
    ///
    /// Which limit is wrong, and what to choose instead.
    fn check(&self, limits: &RoundLimits) -> Result<(), String> {
        let _ = limits;
        Ok(())
    }

    /// Whether it uses [`ClientInfo::capacity`](super::ClientInfo::capacity). If not, that is `None` for all clients.
    fn uses_capacity(&self) -> bool {
        false
    }
}
