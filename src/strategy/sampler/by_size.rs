//! Clients with more data more often.

use super::{Cohort, CohortSize, Sampler, weighted};
use crate::strategy::{RoundContext, StrategyError};

/// Chooses clients with a probability in proportion to the number of their examples, without replacement. With the weighting
/// `uniform`, each example then counts about the same (scheme I of Li et al. 2020, "On the Convergence of FedAvg on Non-IID
/// Data", which draws with replacement).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct BySize {
    /// How many clients.
    pub size: CohortSize,
}

impl BySize {
    /// This many clients.
    pub fn new(size: CohortSize) -> Self {
        Self { size }
    }
}

impl Sampler for BySize {
    fn sample(&self, round: &RoundContext<'_>) -> Result<Cohort, StrategyError> {
        let clients = round.clients.iter();
        let weights: Vec<_> = clients.map(|client| client.examples as f64).collect();
        weighted::draw(round, self.size, &weights)
    }

    fn size(&self, clients: usize, goal: Option<usize>, quorum: usize) -> Option<usize> {
        Some(self.size.among(clients, goal, quorum).1)
    }
}
