//! Beginning again after a client lost its state.
//!
//! SCAFFOLD's `c` and FedDyn's `h` have a part of each client's state. What a client lost stays in them for the rest of the job, and
//! nobody knows how much it was: training would go to another place than the optimum. So all begin again with zeros, as in the
//! first round; that costs a few rounds, and is right.

use std::collections::BTreeMap;

use crate::strategy::{AggregateContext, NextVersion};

/// How often the clients of a job began again, by the numbers of the strategy's state.
pub(super) fn count(numbers: &BTreeMap<String, f64>, name: &str) -> u64 {
    numbers.get(name).copied().unwrap_or(0.0) as u64
}

/// Whether a report of this round comes from a client that had lost its state.
pub(super) fn is_due(round: &AggregateContext<'_>) -> bool {
    let mut reports = round.reports().iter();
    reports.any(|report| report.metadata.state_lost)
}

/// Has all clients begin again, if that is due.
pub(super) fn note(round: &AggregateContext<'_>, next: &mut NextVersion<'_>, name: &str) {
    if is_due(round) {
        let before = round.number(name).unwrap_or(0.0);
        next.set(name, before + 1.0);
    }
}
