//! Who takes part in a round.

use rand::seq::index;

use super::{RoundContext, RoundPlan, StrategyError};
use crate::rng::Purpose;

/// Chooses each client with the same probability, without replacement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UniformSampler {
    /// The share of the clients whose reports a round waits for (`C` of the paper), above 0 and at most 1.
    pub fraction: f64,
    /// How many more clients than the goal are chosen, as a share of the goal: 0.3 chooses 13 for a goal of 10, so that
    /// three stragglers do not delay the round.
    pub over_selection: f64,
}

impl Default for UniformSampler {
    fn default() -> Self {
        Self {
            fraction: 1.0,
            over_selection: 0.0,
        }
    }
}

impl UniformSampler {
    /// A cohort out of the context's clients.
    ///
    /// The goal is the job's own if it has one, else `fraction` of the clients, rounded up, and never below the
    /// quorum.
    ///
    /// # Errors
    ///
    /// [`StrategyError::Plan`] if there are fewer clients than the quorum.
    pub fn plan(&self, round: &RoundContext<'_>) -> Result<RoundPlan, StrategyError> {
        let available = round.clients.len();
        // This also keeps the bounds of both `clamp`s in order, which panic otherwise.
        if available == 0 || available < round.quorum {
            return Err(StrategyError::Plan(format!(
                "{available} clients can take part, and the quorum is {}",
                round.quorum
            )));
        }
        // Rounded up: a small fraction of few clients is then one client and not none, as in the paper's max(C * K,
        // 1).
        let share = rounded_up(self.fraction * available as f64);
        let goal = round
            .goal
            .unwrap_or(share)
            .clamp(round.quorum.max(1), available);
        let chosen = rounded_up(goal as f64 * (1.0 + self.over_selection)).clamp(goal, available);
        // Keyed by the round, not carried on from the last one: a run that is repeated draws the same cohorts.
        let mut generator = round.rng(Purpose::Cohort, 0);
        let mut indices = index::sample(&mut generator, available, chosen).into_vec();
        // They are drawn in random order, and a plan names its clients in rising order.
        indices.sort_unstable();
        let clients = indices.into_iter().map(|index| round.clients[index].id);
        let mut plan = round.plan(clients);
        plan.goal = goal;
        plan.quorum = round.quorum.max(1);
        Ok(plan)
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::{ClientId, RoundId},
        parameters::{PayloadSpec, Roles},
        report::DELTA,
        settings::TrainingSettings,
        strategy::{ClientInfo, Seeds},
    };

    fn plan(
        sampler: UniformSampler,
        clients: u32,
        quorum: usize,
        round: u64,
    ) -> Result<RoundPlan, StrategyError> {
        let clients: Vec<_> = (0..clients)
            .map(|id| ClientInfo::new(ClientId(id), 10))
            .collect();
        let (training, delta) = (
            TrainingSettings::default(),
            PayloadSpec::model(DELTA, Roles::TRAINED),
        );
        let mut context = RoundContext::new(RoundId(round), &clients, &training, &delta);
        context.quorum = quorum;
        context.seeds = Seeds::derived(7);
        sampler.plan(&context)
    }

    #[test]
    fn full_participation_takes_everybody_in_order() {
        let plan = plan(UniformSampler::default(), 5, 2, 1).unwrap();
        assert!(plan.clients().eq((0..5).map(ClientId)));
        assert_eq!((plan.goal, plan.quorum), (5, 2));
    }

    #[test]
    fn over_selection_chooses_more_than_the_goal() {
        let plan = plan(
            UniformSampler {
                fraction: 0.1,
                over_selection: 0.3,
            },
            100,
            1,
            1,
        )
        .unwrap();
        assert_eq!((plan.goal, plan.members.len()), (10, 13));
        assert!(plan.clients().is_sorted());
    }

    #[test]
    fn a_rounding_error_of_a_fraction_is_no_client() {
        for (fraction, over_selection, goal, chosen) in [
            (0.07, 0.0, 7, 7),
            (0.55, 0.0, 55, 55),
            (0.071, 0.0, 8, 8),
            (0.5, 0.1, 50, 55),
            (0.001, 0.0, 1, 1),
        ] {
            let sampler = UniformSampler {
                fraction,
                over_selection,
            };
            let plan = plan(sampler, 100, 1, 1).unwrap();
            assert_eq!(
                (plan.goal, plan.members.len()),
                (goal, chosen),
                "{fraction}"
            );
        }
    }

    #[test]
    fn a_round_draws_its_own_cohort_and_always_the_same() {
        let half = UniformSampler {
            fraction: 0.5,
            over_selection: 0.0,
        };
        assert_eq!(plan(half, 50, 1, 3), plan(half, 50, 1, 3));
        assert_ne!(
            plan(half, 50, 1, 3).unwrap().members,
            plan(half, 50, 1, 4).unwrap().members
        );
    }

    #[test]
    fn every_client_is_chosen_about_as_often() {
        let mut counts = [0usize; 10];
        for round in 0..1000 {
            let half = UniformSampler {
                fraction: 0.5,
                over_selection: 0.0,
            };
            plan(half, 10, 1, round)
                .unwrap()
                .clients()
                .for_each(|client| counts[client.0 as usize] += 1);
        }
        // 500 expected, standard deviation 16.
        assert!(
            counts.iter().all(|count| (420..580).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn fewer_clients_than_the_quorum_is_an_error() {
        assert!(matches!(
            plan(UniformSampler::default(), 2, 3, 1),
            Err(StrategyError::Plan(_))
        ));
    }
}
