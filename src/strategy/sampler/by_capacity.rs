//! Clients of fast workers more often.

use super::{Cohort, CohortSize, Sampler, weighted};
use crate::strategy::{RoundContext, StrategyError};

/// Chooses clients with a probability in proportion to the measured speed of the worker that trains them, without
/// replacement. A client whose worker has not been measured yet counts as one with the mean speed.
///
/// Speeds are measured, so two runs of one job have different cohorts; a run that goes on after a restart does not, since a plan is
/// journaled.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct ByCapacity {
    /// How many clients.
    pub size: CohortSize,
}

impl ByCapacity {
    /// This many clients.
    pub fn new(size: CohortSize) -> Self {
        Self { size }
    }
}

impl Sampler for ByCapacity {
    fn sample(&self, round: &RoundContext<'_>) -> Result<Cohort, StrategyError> {
        let clients = round.clients.iter();
        let capacities: Vec<_> = clients.map(|client| client.capacity).collect();
        let known: Vec<f64> = capacities.iter().copied().flatten().collect();
        let mean = if known.is_empty() {
            1.0
        } else {
            known.iter().sum::<f64>() / known.len() as f64
        };
        let weights: Vec<_> = capacities
            .iter()
            .map(|capacity| capacity.unwrap_or(mean))
            .collect();
        weighted::draw(round, self.size, &weights)
    }

    fn uses_capacity(&self) -> bool {
        true
    }

    fn size(&self, clients: usize, goal: Option<usize>, quorum: usize) -> Option<usize> {
        Some(self.size.among(clients, goal, quorum).1)
    }
}
