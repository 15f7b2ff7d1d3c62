//! What a client keeps between rounds, and which of it counts.
//!
//! A worker can't know whether a report that it sent was folded: its round may be abandoned, the report excluded, the answer
//! lost. So it keeps two states of a client: the committed one, and the one that its last report leads to. The next task says
//! which is the right one: its `basis` is the last round whose commit folded the client. Nothing here knows a network.

use std::collections::BTreeMap;

use crate::{ids::RoundId, parameters::Parameters};

/// What is kept of a client: the trainer's own state, what sparse payloads left out, and the client's own tensors.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Kept {
    /// The trainer's, by name.
    pub state: BTreeMap<String, Parameters>,
    /// By payload.
    pub residuals: BTreeMap<String, Parameters>,
    /// The personal tensors alone. None in a job without, and until the client has trained: then the initial model's count.
    pub personal: Option<Parameters>,
}

impl Kept {
    fn is_empty(&self) -> bool {
        self.state.is_empty() && self.residuals.is_empty() && self.personal.is_none()
    }
}

/// A state, with the round whose report leads to it.
pub(super) type Prepared = (RoundId, Kept);

/// The states of one client.
#[derive(Debug, Default)]
pub(super) struct ClientMemory {
    committed: Option<Prepared>,
    prepared: Option<Prepared>,
}

/// The state that a task starts from.
#[derive(Debug, PartialEq)]
pub(super) struct Choice {
    pub kept: Kept,
    /// Whether the client was folded before, and its state of then is not here.
    pub is_unknown: bool,
}

impl ClientMemory {
    /// With the states that an earlier process of this worker had.
    pub fn new(committed: Option<Prepared>, prepared: Option<Prepared>) -> Self {
        Self {
            committed,
            prepared,
        }
    }

    /// A task of this round comes. If there is the state of a later round, the coordinator goes on with an older export of itself,
    /// and that round has not happened for it.
    pub fn begin(&mut self, round: RoundId) {
        if self.is_past(round) {
            self.prepared = None;
        }
    }

    /// The state that a task with this basis starts from. It stays as it is, so that a task that is cancelled, fails or is
    /// done again changes nothing.
    pub fn choose(&mut self, basis: Option<RoundId>) -> Choice {
        if leads_to(&self.prepared, basis) {
            self.committed = self.prepared.take();
        }
        if !leads_to(&self.committed, basis) {
            // The last report that was folded led to another state, which is not here.
            self.committed = None;
        }
        let kept = self.committed.as_ref().map(|(_, kept)| kept.clone());
        Choice {
            is_unknown: kept.is_none() && basis.is_some(),
            kept: kept.unwrap_or_default(),
        }
    }

    /// Keeps the state that a report of this round leads to, if it is folded. Whether there is something to keep.
    pub fn prepare(&mut self, round: RoundId, kept: Kept) -> bool {
        let is_kept = !kept.is_empty();
        if self.is_past(round) {
            return is_kept;
        }
        self.prepared = self.would_keep(&kept).then_some((round, kept));
        is_kept
    }

    /// Whether a report of a later round is prepared already. A training whose round has closed can end after that of the next.
    pub fn is_past(&self, round: RoundId) -> bool {
        let prepared = self.prepared.as_ref();
        prepared.is_some_and(|(latest, _)| *latest > round)
    }

    /// Whether [`Self::prepare`] keeps this state. An empty one is kept beside one that is not: the client may have cleared it.
    pub fn would_keep(&self, kept: &Kept) -> bool {
        !kept.is_empty() || self.committed.is_some()
    }

    /// The state that the last task started from, with its round.
    pub fn committed(&self) -> Option<&Prepared> {
        self.committed.as_ref()
    }

    /// What is evaluated with a version that this round made: the state as of the last commit that this worker knows of. `basis` is
    /// the last round whose commit folded the client, if the coordinator says it.
    pub fn at(&self, round: RoundId, basis: Option<RoundId>) -> Kept {
        // The state that the last report leads to counts from the commit on that folded it, and not before: not for the version
        // that its training started from.
        let folded = leads_to(&self.prepared, basis)
            .then_some(self.prepared.as_ref())
            .flatten()
            .filter(|(of, _)| *of <= round);
        let found = folded.or(self.committed.as_ref());
        found.map(|(_, kept)| kept.clone()).unwrap_or_default()
    }
}

/// Whether a state is the one that the report of this round led to.
fn leads_to(state: &Option<Prepared>, basis: Option<RoundId>) -> bool {
    let round = state.as_ref().map(|(round, _)| *round);
    basis.is_some() && round == basis
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::{Layout, Role};

    /// A state that is a number.
    fn kept(value: f32) -> Kept {
        let layout = Layout::new([("n".to_string(), vec![1], Role::Trainable)]).unwrap();
        let number = Parameters::new(layout, vec![value]).unwrap();
        Kept {
            state: BTreeMap::from([("n".to_string(), number)]),
            residuals: BTreeMap::new(),
            personal: None,
        }
    }

    /// A round as a worker does it: the state that it starts from, or none if it is the initial one, and whether it is unknown.
    fn train(memory: &mut ClientMemory, round: u64, basis: u64) -> (Option<f32>, bool) {
        let choice = memory.choose((basis > 0).then_some(RoundId(basis)));
        let number = choice.kept.state.get("n").map(|number| number.values()[0]);
        memory.prepare(RoundId(round), kept(number.unwrap_or(0.0) + 1.0));
        (number, choice.is_unknown)
    }

    #[test]
    fn folded_reports_lead_from_state_to_state() {
        let mut memory = ClientMemory::default();
        assert_eq!(train(&mut memory, 1, 0), (None, false));
        assert_eq!(train(&mut memory, 2, 1), (Some(1.0), false));
        // Not in the cohort of rounds 3 to 6.
        assert_eq!(train(&mut memory, 7, 2), (Some(2.0), false));
    }

    #[test]
    fn a_round_that_is_abandoned_or_excludes_the_report_counts_for_nothing() {
        let mut memory = ClientMemory::default();
        train(&mut memory, 1, 0);
        assert_eq!(train(&mut memory, 2, 0), (None, false));
        assert_eq!(train(&mut memory, 3, 2), (Some(1.0), false));
        assert_eq!(train(&mut memory, 4, 2), (Some(1.0), false));
        assert_eq!(train(&mut memory, 5, 2), (Some(1.0), false));
        assert_eq!(train(&mut memory, 6, 5), (Some(2.0), false));
    }

    #[test]
    fn a_task_that_is_done_again_starts_from_the_same_state() {
        let mut memory = ClientMemory::default();
        train(&mut memory, 1, 0);
        assert_eq!(train(&mut memory, 2, 1), (Some(1.0), false));
        assert_eq!(train(&mut memory, 2, 1), (Some(1.0), false));
        assert_eq!(train(&mut memory, 3, 2), (Some(2.0), false));
    }

    #[test]
    fn a_task_that_came_to_nothing_changes_nothing() {
        let mut memory = ClientMemory::default();
        train(&mut memory, 1, 0);
        memory.choose(Some(RoundId(1)));
        memory.choose(Some(RoundId(1)));
        assert_eq!(train(&mut memory, 3, 1), (Some(1.0), false));
    }

    #[test]
    fn a_training_that_ends_after_that_of_the_next_round_changes_nothing() {
        let mut memory = ClientMemory::default();
        train(&mut memory, 1, 0);
        memory.choose(Some(RoundId(1)));
        train(&mut memory, 3, 1);
        memory.prepare(RoundId(2), kept(9.0));
        assert_eq!(train(&mut memory, 4, 3), (Some(2.0), false));
    }

    #[test]
    fn a_worker_without_the_state_says_so() {
        // The worker was killed, or the lease came from another one.
        let mut memory = ClientMemory::default();
        assert_eq!(train(&mut memory, 5, 4), (None, true));
        assert_eq!(train(&mut memory, 6, 5), (Some(1.0), false));
        // The lease was away for rounds 7 and 8, and another worker's report was folded.
        assert_eq!(train(&mut memory, 9, 8), (None, true));
        // Its own report of round 9 was not folded: the state of round 8 is still not here.
        assert_eq!(train(&mut memory, 10, 8), (None, true));
    }

    #[test]
    fn a_client_without_a_state_keeps_nothing() {
        let mut memory = ClientMemory::default();
        assert!(!memory.prepare(RoundId(1), Kept::default()));
        assert!(memory.prepared.is_none());
        assert!(memory.choose(Some(RoundId(1))).is_unknown);
        // One that clears its state keeps that.
        train(&mut memory, 2, 1);
        memory.choose(Some(RoundId(2)));
        memory.prepare(RoundId(3), Kept::default());
        assert_eq!(train(&mut memory, 4, 3), (None, false));
    }

    #[test]
    fn an_evaluation_has_what_was_folded_up_to_its_version_and_changes_nothing() {
        let mut memory = ClientMemory::default();
        let at = |memory: &ClientMemory, round: u64, basis: u64| {
            let kept = memory.at(RoundId(round), (basis > 0).then_some(RoundId(basis)));
            kept.state.get("n").map(|number| number.values()[0])
        };
        assert_eq!(at(&memory, 1, 0), None);
        train(&mut memory, 1, 0);
        // Version 1 was made without the report, or with it.
        assert_eq!(at(&memory, 1, 0), None);
        assert_eq!(at(&memory, 1, 1), Some(1.0));
        train(&mut memory, 2, 1);
        // The evaluation of version 1 is late: round 2 has its report, and may have been committed.
        assert_eq!(at(&memory, 1, 1), Some(1.0));
        assert_eq!(at(&memory, 1, 2), Some(1.0));
        assert_eq!(at(&memory, 2, 2), Some(2.0));
        assert_eq!(train(&mut memory, 3, 1), (Some(1.0), false));
    }

    #[test]
    fn personal_tensors_are_a_state() {
        let mut memory = ClientMemory::default();
        let personal = kept(1.0).state.remove("n");
        let own = Kept {
            personal,
            ..Kept::default()
        };
        assert!(memory.prepare(RoundId(1), own.clone()));
        assert_eq!(memory.choose(Some(RoundId(1))).kept, own);
    }

    #[test]
    fn after_the_coordinator_went_back_one_round_lacks_the_state_and_no_more() {
        let mut memory = ClientMemory::default();
        for round in 1..=9 {
            memory.begin(RoundId(round));
            train(&mut memory, round, round - 1);
        }
        let mut unknown = Vec::new();
        for round in 4..=6 {
            memory.begin(RoundId(round));
            unknown.push(train(&mut memory, round, round - 1).1);
        }
        assert_eq!(unknown, [true, false, false]);
    }
}
