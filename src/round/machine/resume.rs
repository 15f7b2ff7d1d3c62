//! How a job goes on in a process that recovered its machine.
//!
//! What was under way in the process before is lost: the work of commands, and uploads. What the machine has decided is
//! not. So commands are given again, each from the beginning, and lead to the same end: a plan, a fold and an evaluation are
//! functions of what is kept.

use std::time::Duration;

use super::{Phase, RoundMachine};
use crate::{
    ids::{ClientId, ModelVersion, RequestId, RoundId, Timestamp, WorkerId},
    round::{Command, JobEvent, collection::Collection},
    strategy::RoundPlan,
};

/// What a driver that recovered a machine needs to know of it.
impl RoundMachine {
    /// The workers that it takes to be there, in order of registration.
    pub fn workers(&self) -> Vec<WorkerId> {
        self.leases.workers().map(|(worker, _)| worker).collect()
    }

    /// The plan of the round that is open, or else of the last one.
    pub fn last_plan(&self) -> Option<&RoundPlan> {
        let last = self.current.as_ref().or_else(|| self.closed.back());
        last.map(|round| &round.plan)
    }

    /// The round that is open or being closed.
    pub fn round_under_way(&self) -> Option<RoundId> {
        self.current.as_ref().map(|current| current.round)
    }

    /// Whether this round is open, and this client's report of it may still come.
    pub fn awaits_report(&self, round: RoundId, client: ClientId) -> bool {
        self.current.as_ref().is_some_and(|current| {
            current.round == round && !current.closed && current.is_outstanding(client)
        })
    }

    /// The reports that the round that is open or being closed has accepted, in client order: each with the request that
    /// uploaded it and the worker that sent it.
    pub fn accepted(&self) -> Vec<(ClientId, RequestId, WorkerId)> {
        self.current
            .as_ref()
            .map(Collection::accepted_with_senders)
            .unwrap_or_default()
    }

    /// The oldest version that is not evaluated yet, if any.
    pub fn first_unevaluated(&self) -> Option<ModelVersion> {
        let evaluating = self.evaluating.as_ref().map(|pending| pending.version);
        evaluating.or_else(|| self.to_evaluate.front().map(|due| due.version))
    }
}

impl RoundMachine {
    pub(super) fn recovered(&mut self, downtime_ms: u64, abandon: Option<String>, now: Timestamp) {
        if self.outcome().is_some() {
            return;
        }
        self.log(JobEvent::Recovered { downtime_ms });
        self.move_deadlines(Duration::from_millis(downtime_ms));
        for collection in self.current.iter_mut().chain(&mut self.closed) {
            collection.end_uploads();
        }
        // Before the rounds go on: a round that begins may have to wait for it.
        if let Some(pending) = &self.evaluating
            && pending.deadline.is_none()
        {
            let (version, split) = (pending.version, pending.split);
            self.commands
                .push_back(Command::Evaluate { version, split });
        }
        match abandon {
            Some(reason) if self.has_open_round() => self.abandon(reason, now),
            _ => self.repeat_command(now),
        }
    }

    /// Nothing was done while the driver was away, so that time counts for no deadline.
    pub(super) fn move_deadlines(&mut self, downtime: Duration) {
        match &mut self.phase {
            Phase::Waiting { deadline } | Phase::Gathering { deadline } => {
                *deadline = *deadline + downtime;
            }
            _ => {}
        }
        if let Some(current) = &mut self.current {
            current.deadline = current.deadline + downtime;
        }
        if let Some(pending) = &mut self.evaluating {
            pending.deadline = pending.deadline.map(|deadline| deadline + downtime);
        }
        self.started = self.started.map(|started| started + downtime);
    }

    /// Whether a round has been planned and has not ended.
    fn has_open_round(&self) -> bool {
        self.current.is_some()
    }

    /// Gives the command again that the phase waits for.
    fn repeat_command(&mut self, now: Timestamp) {
        match self.phase {
            // Workers were lost while the data was dealt the first time.
            Phase::Preparing if !self.has_workers() => {
                let timeout = Duration::from_secs(self.config.limits.start_timeout);
                self.phase = Phase::Waiting {
                    deadline: now + timeout,
                };
                self.log_waiting();
            }
            Phase::Preparing => self.prepare(),
            Phase::Dealing => {
                let round = self.round.next();
                self.commands.push_back(Command::Deal { round });
            }
            // Workers were lost while it was planned the first time. Nobody has seen the round's number yet.
            Phase::Planning if self.leases.held() < self.quorum() => {
                self.round = RoundId(self.round.0.saturating_sub(1));
                self.gather(now);
            }
            Phase::Planning => self.plan(),
            // The aggregate was not stored yet, or nobody knows whether it was. The same reports make the same one.
            Phase::Aggregating | Phase::Publishing { .. } => self.aggregate(),
            // These wait for workers, for a deadline, or for an evaluation.
            Phase::Waiting { .. }
            | Phase::Gathering { .. }
            | Phase::Paused
            | Phase::CatchingUp
            | Phase::Collecting
            | Phase::Finishing
            | Phase::Ended(_) => {}
        }
    }
}
