//! How the work that the machine orders ends, well or badly, and sometimes twice.

use super::*;
use crate::strategy::Member;

impl World {
    /// Long work comes to its end, well or badly.
    pub(super) fn land(&mut self) -> Step {
        if self.flights.is_empty() {
            return Ok(());
        }
        let index = self.rng.random_range(0..self.flights.len());
        let flight = self.flights.swap_remove(index);
        let fails = self.faulty();
        let event = self.end_of(flight, fails);
        if !matches!(event, Event::Prepared(_)) {
            self.stale.push(event.clone());
        }
        self.feed(event)
    }

    pub(super) fn end_of(&mut self, flight: Flight, fails: bool) -> Event {
        let failure = || "the disk is full".to_string();
        match flight {
            // One in four, or most of the jobs would never begin.
            Flight::Prepare(_) if fails && self.chance(25) => Event::Prepared(Err(failure())),
            Flight::Prepare(workers) => Event::Prepared(Ok(self.clients(&workers))),
            Flight::Deal(round) => Event::Dealt {
                round,
                examples: self.sizes(fails),
            },
            Flight::Plan(round, _) if fails && self.chance(30) => Event::Planned {
                round,
                plan: Err("no plan".to_string()),
            },
            Flight::Plan(round, clients) => {
                let plan = Ok(self.plan(&clients, fails));
                Event::Planned { round, plan }
            }
            Flight::Aggregate(round, accepted) => {
                let aggregation = if fails && self.chance(40) {
                    Err(failure())
                } else {
                    Ok(self.aggregation(round, &accepted, fails))
                };
                Event::Aggregated {
                    round,
                    aggregation,
                    joules: 1.0,
                }
            }
            Flight::Publish(version) => {
                let published = if fails { Err(failure()) } else { Ok(()) };
                Event::Published { version, published }
            }
            Flight::Evaluate(version, split) => {
                let accuracy = self.rng.random_range(0..=20) as f64 / 20.0;
                let measured = Evaluation::new(1.0, 10).with_accuracy(accuracy);
                let evaluation = if fails { Err(failure()) } else { Ok(measured) };
                Event::Evaluated {
                    version,
                    split,
                    evaluation,
                }
            }
        }
    }

    pub(super) fn clients(&mut self, workers: &[(WorkerId, u32)]) -> Vec<ClientSpec> {
        let examples = |index: u64| 10 + index;
        if self.habits.local {
            workers
                .iter()
                .map(|(worker, _)| ClientSpec {
                    examples: examples(worker.0),
                    home: Some(*worker),
                })
                .collect()
        } else {
            (0..u64::from(self.habits.clients))
                .map(|index| ClientSpec {
                    examples: examples(index),
                    home: None,
                })
                .collect()
        }
    }

    /// New sizes of the partitions, or none; sometimes they are none that a machine may take. At least 10 each, which is
    /// what honest reports claim.
    fn sizes(&mut self, fails: bool) -> Option<Vec<u64>> {
        if self.chance(40) {
            return None;
        }
        let clients = self.checker.clients.len();
        let mut sizes: Vec<_> = (0..clients)
            .map(|_| self.rng.random_range(10..2000))
            .collect();
        if fails {
            if self.chance(50) {
                sizes[0] = 0
            } else {
                sizes.push(10)
            }
        }
        Some(sizes)
    }

    pub(super) fn plan(&mut self, clients: &[ClientId], fails: bool) -> RoundPlan {
        if self.chance(15) {
            return self.plan_without_quorum(clients);
        }
        let least = self.limits.min_updates as usize;
        let chosen = self.rng.random_range(least..=clients.len());
        let mut cohort: Vec<_> = clients.sample(&mut self.rng, chosen).copied().collect();
        cohort.sort();
        let goal = self.rng.random_range(least..=cohort.len());
        let quorum = self.rng.random_range(least..=goal);
        let mut plan = RoundPlan::new(cohort, TrainingSettings::default());
        (plan.goal, plan.quorum) = (goal, quorum);
        if fails {
            match self.rng.random_range(0..5) {
                0 => plan.members.push(Member::new(ClientId(99))),
                1 => plan.members.push(plan.members[0].clone()),
                2 => plan.goal = plan.members.len() + 1,
                3 => plan.quorum = least - 1,
                _ => plan.quorum = plan.goal + 1,
            }
        }
        plan
    }

    /// A plan that commits with whatever came; sometimes nobody is asked at all.
    fn plan_without_quorum(&mut self, clients: &[ClientId]) -> RoundPlan {
        let chosen = self.rng.random_range(0..=clients.len());
        let mut cohort: Vec<_> = clients.sample(&mut self.rng, chosen).copied().collect();
        cohort.sort();
        let mut plan = RoundPlan::new(cohort, TrainingSettings::default());
        plan.quorum = 0;
        plan
    }

    /// Folds some of the accepted clients and excludes the others; a fair driver folds at least the quorum. An
    /// aggregation that fails has nonsense in it.
    fn aggregation(&mut self, round: RoundId, accepted: &[ClientId], fails: bool) -> Aggregation {
        let mut aggregation = Aggregation::new([], 1.0);
        let mut spare = accepted.len();
        if self.is_fair || self.chance(60) {
            spare = spare.saturating_sub(self.checker.quorum_of(round));
        }
        let excludes = self.chance(60);
        for client in accepted {
            if excludes && aggregation.excluded.len() < spare && self.chance(50) {
                let reason = "too far from the others".to_string();
                aggregation.excluded.push((*client, reason));
            } else {
                aggregation.folded.push(*client);
            }
        }
        aggregation.metrics = BTreeMap::from([("norm".to_string(), 0.5)]);
        if fails {
            let stranger = ClientId(self.rng.random_range(0..10));
            match self.rng.random_range(0..4) {
                0 => drop(aggregation.folded.pop()),
                1 => aggregation.folded.push(stranger),
                2 => aggregation.excluded.push((stranger, "unknown".to_string())),
                _ => aggregation.folded.reverse(),
            }
        }
        aggregation
    }

    /// The end of some long work is told a second time.
    pub(super) fn tell_stale(&mut self) -> Step {
        match self.stale.choose(&mut self.rng).cloned() {
            // Two attempts at one version have the same name; the driver tells the end of each once.
            Some(Event::Published { version, .. }) if version > self.machine.status().version => {
                Ok(())
            }
            Some(event) => self.feed(event),
            None => Ok(()),
        }
    }
}
