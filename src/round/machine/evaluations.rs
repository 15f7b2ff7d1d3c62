//! Versions are measured beside the rounds, by the driver or by the workers.

use std::time::Duration;

use super::{EvaluationBy, Phase, RoundMachine};
use crate::{
    ids::{ClientId, ModelVersion, RequestId, RoundId, Timestamp, WorkerId},
    report::{Refusal, RefusalKind},
    round::{
        Command, Evaluation, JobEvent, Outcome, Response, collection::not_leased, pending::Pending,
    },
};

/// How many versions may wait for their evaluation, beside the one that is being evaluated, before training waits for them.
const MOST_WAITING: usize = 2;

impl RoundMachine {
    /// Whether this version may still be asked for: the global model, or one that is yet to be evaluated.
    pub fn needs(&self, version: ModelVersion) -> bool {
        version == self.version
            || self.evaluation(version).is_some()
            || self
                .to_evaluate
                .iter()
                .any(|(waiting, _)| *waiting == version)
    }

    /// A new version takes its place behind those that are not evaluated yet.
    pub(super) fn queue_evaluation(
        &mut self,
        version: ModelVersion,
        round: RoundId,
        now: Timestamp,
    ) {
        if self.config.evaluation == EvaluationBy::Nobody {
            return;
        }
        self.to_evaluate.push_back((version, round));
        self.evaluate_next(now);
    }

    /// Whether training has to wait, so that evaluations do not fall behind without a bound.
    pub(super) fn is_behind(&self) -> bool {
        self.to_evaluate.len() >= MOST_WAITING
    }

    /// How many versions are not evaluated yet.
    pub(super) fn unevaluated(&self) -> usize {
        self.to_evaluate.len() + usize::from(self.evaluating.is_some())
    }

    /// Begins with the oldest version, unless one is being evaluated.
    fn evaluate_next(&mut self, now: Timestamp) {
        if self.evaluating.is_some() {
            return;
        }
        let Some((version, round)) = self.to_evaluate.pop_front() else {
            return;
        };
        self.evaluating = Some(match self.config.evaluation {
            EvaluationBy::Nobody => return,
            EvaluationBy::Driver => {
                self.commands.push_back(Command::Evaluate { version });
                Pending::by_driver(version, round)
            }
            EvaluationBy::Workers => {
                let workers: Vec<_> = self.leases.workers().map(|(worker, _)| worker).collect();
                self.wake(workers);
                // Counted from its turn, not from its commit: a version that waits behind another one must not expire
                // meanwhile.
                let deadline = now + Duration::from_secs(self.config.limits.evaluation_timeout);
                let clients = self.evaluators();
                let mut pending = Pending::by_clients(version, round, &clients, deadline);
                // Clients with data of their own have test splits of their own, of any size. Pinned ones have dealt data, and
                // shares of one split.
                if self.config.pinned || self.clients.iter().all(|spec| spec.home.is_none()) {
                    pending = pending.of_one_split();
                }
                for client in clients {
                    pending.place(client, self.leases.holder(client));
                }
                pending
            }
        });
    }

    /// The job ends: what is not evaluated stays so, and the log says it.
    pub(super) fn skip_evaluations(&mut self) {
        let mut skipped = Vec::new();
        skipped.extend(self.evaluating.take().map(|pending| pending.version));
        skipped.extend(self.to_evaluate.drain(..).map(|(version, _)| version));
        for version in skipped {
            self.log(JobEvent::Evaluated {
                version,
                evaluation: None,
                reason: Some("the job ended first".to_string()),
            });
        }
    }

    /// Who takes a share: the clients with a live worker, or, without any, those that the next worker can act for.
    fn evaluators(&self) -> Vec<ClientId> {
        // A share of a client without a worker may stay open until the deadline, and without it there is no mean. So
        // the split is divided over those that can begin now.
        let available: Vec<_> = self.available().map(|(client, _)| client).collect();
        if !available.is_empty() {
            return available;
        }
        self.numbered()
            // A client with a home can only be evaluated there, and that worker is gone.
            .filter(|(_, spec)| spec.home.is_none())
            .map(|(client, _)| client)
            .collect()
    }

    pub(super) fn share_evaluated(
        &mut self,
        request: RequestId,
        worker: WorkerId,
        client: ClientId,
        version: ModelVersion,
        evaluation: Result<Evaluation, String>,
    ) {
        let response = match self.judge_share(worker, client, version) {
            Ok(()) => Response::Accepted,
            Err(refusal) => Response::Refused(refusal),
        };
        // The answer goes out first: whether the share is still of use is no concern of its sender.
        let is_accepted = response == Response::Accepted;
        self.respond(request, response);
        let pending = self.evaluating.as_mut();
        if let Some(pending) = pending.filter(|pending| is_accepted && pending.version == version) {
            pending.take(client, evaluation);
        }
    }

    /// A share that is in already, or not wanted any more, is accepted from any worker, and changes nothing.
    fn judge_share(
        &self,
        worker: WorkerId,
        client: ClientId,
        version: ModelVersion,
    ) -> Result<(), Refusal> {
        self.client(client)?;
        // Older versions are accepted below, and pass over: their evaluation is over.
        if version > self.version {
            let detail = format!("there is no version {version}");
            return Err(Refusal::new(RefusalKind::NotFound, detail));
        }
        let is_open = self
            .evaluation(version)
            .is_some_and(|pending| pending.is_open(client));
        if is_open && self.leases.holder(client) != Some(worker) {
            Err(not_leased(worker, client))
        } else {
            Ok(())
        }
    }

    fn evaluation(&self, version: ModelVersion) -> Option<&Pending> {
        self.evaluating
            .as_ref()
            .filter(|pending| pending.version == version)
    }

    pub(super) fn evaluated(
        &mut self,
        version: ModelVersion,
        evaluation: Result<Evaluation, String>,
    ) {
        if self.evaluation(version).is_none() {
            return;
        }
        self.evaluating = None;
        let checked = evaluation.and_then(|evaluation| {
            // A mean over nothing is no measurement, and would be shown as an accuracy of 0.
            if evaluation.examples == 0 {
                return Err("the test split has no examples".to_string());
            }
            evaluation.checked()
        });
        let (evaluation, reason) = match checked {
            Ok(evaluation) => (Some(evaluation), None),
            Err(reason) => (None, Some(reason)),
        };
        self.log(JobEvent::Evaluated {
            version,
            evaluation,
            reason,
        });
    }

    /// Concludes the evaluation that has all that will come, and begins the next one; then lets training go on that
    /// waited for it, and ends the job after the last.
    pub(super) fn check_evaluations(&mut self, now: Timestamp) {
        self.evaluate_next(now);
        // A loop: the next version in turn may be without any evaluator, and be over at once, too.
        while let Some(pending) = &self.evaluating {
            let is_due = pending.deadline.is_some_and(|deadline| now >= deadline);
            if !is_due && !pending.is_done() {
                break;
            }
            let (version, result) = (pending.version, pending.result());
            self.evaluated(version, result);
            self.evaluate_next(now);
        }
        if self.phase == Phase::CatchingUp && !self.is_behind() {
            self.begin_round(now);
        }
        if self.phase == Phase::Finishing && self.unevaluated() == 0 {
            self.end(Outcome::Completed);
        }
    }
}
