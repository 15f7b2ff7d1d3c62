//! What a sampler chooses, and how many clients that is.

use crate::{
    ids::ClientId,
    strategy::{RoundContext, StrategyError},
};

/// The clients of a round.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cohort {
    /// The clients, in strictly rising order.
    pub clients: Vec<ClientId>,
    /// How many reports the round waits for; at most as many as clients.
    pub goal: usize,
    /// The fewest reports that may commit the round: at least the job's quorum, or 0 if a round without any report may commit.
    pub quorum: usize,
}

impl Cohort {
    /// The clients at these places of the context's list, in any order; the round waits for `goal` of them, and has the job's
    /// quorum.
    pub fn at(round: &RoundContext<'_>, mut places: Vec<usize>, goal: usize) -> Self {
        // They are drawn in random order, and a plan names its clients in rising order.
        places.sort_unstable();
        Self {
            clients: places
                .into_iter()
                .map(|place| round.clients[place].id)
                .collect(),
            goal,
            quorum: round.quorum.max(1),
        }
    }
}

/// How many clients a round has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CohortSize {
    /// The share of the clients whose reports a round waits for (`C` of the FedAvg paper), above 0 and at most 1.
    pub fraction: f64,
    /// How many more clients than the goal are chosen, as a share of the goal: 0.3 chooses 13 for a goal of 10, so that
    /// three stragglers do not delay the round.
    pub over_selection: f64,
}

impl Default for CohortSize {
    fn default() -> Self {
        Self {
            fraction: 1.0,
            over_selection: 0.0,
        }
    }
}

impl CohortSize {
    /// How many reports the round waits for, and how many clients are chosen for that.
    ///
    /// The goal is the job's own if it has one, else `fraction` of the clients, rounded up, and never below the quorum.
    ///
    /// # Errors
    ///
    /// [`StrategyError::Plan`] if there are fewer clients than the quorum.
    pub fn of(&self, round: &RoundContext<'_>) -> Result<(usize, usize), StrategyError> {
        let available = enough_clients(round)?;
        Ok(self.among(available, round.goal, round.quorum))
    }

    /// As [`CohortSize::of`], for at least as many clients as the quorum.
    pub(super) fn among(
        &self,
        available: usize,
        goal: Option<usize>,
        quorum: usize,
    ) -> (usize, usize) {
        // Rounded up: a small fraction of few clients is then one client and not none, as in the paper's max(C * K, 1).
        let share = rounded_up(self.fraction * available as f64);
        let goal = goal.unwrap_or(share).max(quorum.max(1)).min(available);
        let chosen = rounded_up(goal as f64 * (1.0 + self.over_selection));
        (goal, chosen.max(goal).min(available))
    }
}

/// The number of clients that can take part: at least one, and at least the quorum.
pub(super) fn enough_clients(round: &RoundContext<'_>) -> Result<usize, StrategyError> {
    let available = round.clients.len();
    if available == 0 || available < round.quorum {
        return Err(StrategyError::Plan(format!(
            "{available} clients can take part, and the quorum is {}",
            round.quorum
        )));
    }
    Ok(available)
}

/// A number of clients, rounded up.
fn rounded_up(exact: f64) -> usize {
    let nearest = exact.round();
    // 0.07 * 100 is 7.000000000000001 in floating point: the error of a product is not one more client.
    if (exact - nearest).abs() <= 4.0 * f64::EPSILON * nearest {
        nearest as usize
    } else {
        exact.ceil() as usize
    }
}
