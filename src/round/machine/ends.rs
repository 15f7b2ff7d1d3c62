//! How a job ends: completed, failed or cancelled. It ends once.

use super::{Phase, RoundMachine};
use crate::{
    ids::{RequestId, Timestamp},
    report::{Refusal, RefusalKind},
    round::{Command, JobEvent, Outcome, Response, leases::Leases},
};

impl RoundMachine {
    /// How the job ended, once it has.
    pub fn outcome(&self) -> Option<&Outcome> {
        match &self.phase {
            Phase::Ended(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// The open round goes on either way.
    pub(super) fn set_paused(&mut self, request: RequestId, paused: bool, now: Timestamp) {
        if self.outcome().is_some() {
            let refusal = Refusal::new(RefusalKind::Conflict, "the job has ended already");
            return self.respond(request, Response::Refused(refusal));
        }
        self.respond(request, Response::Accepted);
        // Asked again, for instance since the first answer was lost.
        if self.paused == paused {
            return;
        }
        self.paused = paused;
        if paused {
            self.log(JobEvent::Paused);
        } else {
            self.log(JobEvent::Unpaused);
            if self.phase == Phase::Paused {
                self.begin_round(now);
            }
        }
    }

    pub(super) fn cancelled(&mut self, request: RequestId) {
        match self.outcome() {
            // Asked again, for instance since the first answer was lost: the same answer.
            Some(Outcome::Cancelled) => self.respond(request, Response::Accepted),
            Some(_) => {
                let refusal = Refusal::new(RefusalKind::Conflict, "the job has ended already");
                self.respond(request, Response::Refused(refusal));
            }
            None => {
                self.respond(request, Response::Accepted);
                self.close_current();
                self.end(Outcome::Cancelled);
            }
        }
    }

    /// What the driver needs for the job is gone.
    pub(super) fn broken(&mut self, reason: String) {
        if self.outcome().is_none() {
            self.close_current();
            self.fail(reason);
        }
    }

    pub(super) fn fail_waiting(&mut self, seconds: u64) {
        let detail = self.status().detail;
        self.fail(format!("after {seconds} s still {detail}"));
    }

    pub(super) fn fail(&mut self, reason: String) {
        self.end(Outcome::Failed { reason });
    }

    pub(super) fn end(&mut self, outcome: Outcome) {
        // Before the phase changes: `log` takes nothing more once the job has ended, and the end is the last entry.
        self.skip_evaluations();
        self.log(JobEvent::Ended(outcome.clone()));
        self.commands.push_back(Command::End(outcome.clone()));
        self.phase = Phase::Ended(outcome);
        // Nobody acts for a client any more. Ended jobs are kept, and leases are most of what a machine has in memory.
        self.leases = Leases::default();
    }
}
