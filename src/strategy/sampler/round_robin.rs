//! Each client once in a pass.

use rand::seq::SliceRandom;

use super::{Cohort, CohortSize, Sampler, cohort::enough_clients};
use crate::{
    ids::RoundId,
    rng::{self, Purpose},
    strategy::{RoundContext, StrategyError},
};

/// Each client takes part in exactly one round of a pass over all clients. The order of a pass is random, and each pass has its own.
/// The cohorts of a pass have the same size, or differ by one client: so a round may have fewer clients than the fraction says. 0.3 of
/// 40 clients is 12, which takes 4 rounds for a pass, and so each has 10.
///
/// The cohort depends on the model version and not on the round, so a round that is tried again has the same clients. With `local`
/// data, a pass is over the clients whose workers are live.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct RoundRobin {
    /// The share of the clients in a round, above 0 and at most 1; a pass has about one round for each such share.
    pub fraction: f64,
}

impl RoundRobin {
    /// This share of the clients in each round.
    pub fn new(fraction: f64) -> Self {
        Self { fraction }
    }
}

impl RoundRobin {
    /// How many rounds a pass over this many clients has: as few as the goal allows, but none with fewer clients than the quorum.
    fn rounds(&self, available: usize, goal: Option<usize>, quorum: usize) -> usize {
        let size = CohortSize {
            fraction: self.fraction,
            over_selection: 0.0,
        };
        let (goal, _) = size.among(available, goal, quorum);
        available.div_ceil(goal).min(available / quorum.max(1))
    }
}

impl Sampler for RoundRobin {
    fn size(&self, clients: usize, goal: Option<usize>, quorum: usize) -> Option<usize> {
        // Too few clients for any round: nothing is known of rounds that there won't be.
        if clients == 0 || clients < quorum {
            return None;
        }
        Some(clients / self.rounds(clients, goal, quorum))
    }

    fn sample(&self, round: &RoundContext<'_>) -> Result<Cohort, StrategyError> {
        let available = enough_clients(round)?;
        let rounds = self.rounds(available, round.goal, round.quorum) as u64;
        let (pass, turn) = (round.version.0 / rounds, round.version.0 % rounds);
        let mut order: Vec<usize> = (0..available).collect();
        // Not the context's generator, which is the round's: all rounds of a pass need the same order.
        let key = round.seeds.public;
        let mut generator = rng::streamed(key, Purpose::Cohort, RoundId(0), pass + 1);
        order.shuffle(&mut generator);
        let start_of = |turn: u64| (available as u64 * turn / rounds) as usize;
        let places = order[start_of(turn)..start_of(turn + 1)].to_vec();
        let goal = places.len();
        Ok(Cohort::at(round, places, goal))
    }
}
