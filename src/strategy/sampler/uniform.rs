//! All clients alike.

use rand::seq::index;

use super::{Cohort, CohortSize, Sampler};
use crate::{
    rng::Purpose,
    strategy::{RoundContext, StrategyError},
};

/// Chooses each client with the same probability, without replacement: FedAvg as published (McMahan et al. 2017).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct Uniform {
    /// How many clients.
    pub size: CohortSize,
}

impl Uniform {
    /// This many clients.
    pub fn new(size: CohortSize) -> Self {
        Self { size }
    }
}

impl Sampler for Uniform {
    fn sample(&self, round: &RoundContext<'_>) -> Result<Cohort, StrategyError> {
        let (goal, chosen) = self.size.of(round)?;
        // Keyed by the round, not carried on from the last one: a run that is repeated draws the same cohorts.
        let mut generator = round.rng(Purpose::Cohort, 0);
        let places = index::sample(&mut generator, round.clients.len(), chosen);
        Ok(Cohort::at(round, places.into_vec(), goal))
    }

    fn size(&self, clients: usize, goal: Option<usize>, quorum: usize) -> Option<usize> {
        Some(self.size.among(clients, goal, quorum).1)
    }
}
