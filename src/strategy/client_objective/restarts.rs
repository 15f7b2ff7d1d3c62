//! The restart after a client lost its state.
//!
//! SCAFFOLD's `c` and FedDyn's `h` contain a part of each client's state. If a client loses its state, its old part stays in them, and
//! the coordinator does not know how large it was: training would go to a wrong optimum for the rest of the job. So the coordinator and
//! all clients restart from zeros, as in the first round. That costs a few rounds.

use std::collections::BTreeMap;

use crate::strategy::{AggregateContext, NextVersion};

/// The number of restarts, from the numbers of the strategy's state.
pub(super) fn count(numbers: &BTreeMap<String, f64>, name: &str) -> u64 {
    numbers.get(name).copied().unwrap_or(0.0) as u64
}

/// Whether a client of this round had lost its state.
pub(super) fn is_due(round: &AggregateContext<'_>) -> bool {
    let mut reports = round.reports().iter();
    reports.any(|report| report.metadata.state_lost)
}

/// Counts a restart if one is due; the next plan tells it to all clients.
pub(super) fn note(round: &AggregateContext<'_>, next: &mut NextVersion<'_>, name: &str) {
    if is_due(round) {
        let before = round.number(name).unwrap_or(0.0);
        next.set(name, before + 1.0);
    }
}
