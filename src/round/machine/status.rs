//! A job's progress, in words.

use super::{Phase, RoundMachine};
use crate::{
    ids::{ModelVersion, RoundId},
    round::Outcome,
    words::plural,
};

/// A job's progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoundStatus {
    /// One word: waiting, preparing, gathering, dealing, paused, evaluating, planning, collecting, aggregating, publishing, finishing, completed,
    /// stopped, failed, cancelled.
    pub phase: &'static str,
    /// What it waits for, or how it ended, in words.
    pub detail: String,
    /// The last round that began; 0 before the first.
    pub round: RoundId,
    /// The version of the global model.
    pub version: ModelVersion,
    /// Reports accepted in the current round.
    pub accepted: usize,
    /// The current round's goal; 0 outside of one.
    pub goal: usize,
}

impl RoundMachine {
    /// The job's progress.
    pub fn status(&self) -> RoundStatus {
        let (accepted, goal) = match &self.current {
            Some(current) => (current.accepted_count(), current.plan.goal),
            None => (0, 0),
        };
        RoundStatus {
            phase: self.phase_name(),
            detail: self.describe(accepted, goal),
            round: self.round,
            version: self.version,
            accepted,
            goal,
        }
    }

    fn phase_name(&self) -> &'static str {
        match &self.phase {
            Phase::Waiting { .. } => "waiting",
            Phase::Preparing => "preparing",
            Phase::Gathering { .. } => "gathering",
            Phase::Dealing => "dealing",
            Phase::Paused => "paused",
            Phase::CatchingUp => "evaluating",
            Phase::Planning => "planning",
            Phase::Collecting => "collecting",
            Phase::Aggregating => "aggregating",
            Phase::Publishing { .. } => "publishing",
            Phase::Finishing => "finishing",
            Phase::Ended(Outcome::Completed) => "completed",
            Phase::Ended(Outcome::Stopped { .. }) => "stopped",
            Phase::Ended(Outcome::Failed { .. }) => "failed",
            Phase::Ended(Outcome::Cancelled) => "cancelled",
        }
    }

    fn describe(&self, accepted: usize, goal: usize) -> String {
        let limits = &self.config.limits;
        match &self.phase {
            Phase::Waiting { .. } => format!(
                "waiting for workers: {} of at least {} are there{}",
                self.leases.workers().len(),
                limits.min_workers,
                self.bystanders
            ),
            Phase::Preparing => "dealing the data over the clients".to_string(),
            Phase::Gathering { .. } => format!(
                "waiting for clients: {} of at least {} have a live worker{}",
                self.leases.held(),
                self.quorum(),
                self.bystanders
            ),
            Phase::Dealing => format!("dealing the data before round {}", self.round.next()),
            Phase::Paused => format!("paused by the operator before round {}", self.round.next()),
            Phase::CatchingUp => format!(
                "waiting for the evaluation of {} before round {}",
                plural(self.unevaluated(), "version"),
                self.round.next()
            ),
            Phase::Planning => format!("planning round {}", self.round),
            Phase::Collecting => {
                let orphans = match self.leases.orphans() {
                    0 => String::new(),
                    1 => "; 1 client has no live worker".to_string(),
                    orphans => format!("; {orphans} clients have no live worker"),
                };
                let paused = if self.paused {
                    "; no further round begins: paused by the operator"
                } else {
                    ""
                };
                format!(
                    "round {}: {accepted} of {goal} reports{orphans}{paused}",
                    self.round
                )
            }
            Phase::Aggregating => {
                format!(
                    "folding {} of round {}",
                    plural(accepted, "report"),
                    self.round
                )
            }
            Phase::Publishing { .. } => format!("storing version {}", self.version.next()),
            Phase::Finishing => format!(
                "waiting for the evaluation of {}",
                plural(self.unevaluated(), "version")
            ),
            Phase::Ended(Outcome::Completed) => {
                format!("{} committed", plural(self.version, "round"))
            }
            Phase::Ended(Outcome::Failed { reason }) => reason.clone(),
            Phase::Ended(Outcome::Stopped { reason, .. }) => {
                format!("{} committed; {reason}", plural(self.version, "round"))
            }
            Phase::Ended(Outcome::Cancelled) => "cancelled by the operator".to_string(),
        }
    }
}
