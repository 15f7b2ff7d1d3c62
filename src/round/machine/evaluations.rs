//! Versions are measured beside the rounds, by the driver or by the workers.

use std::time::Duration;

use super::{Due, EvaluationBy, Phase, RoundMachine};
use crate::{
    ids::{ClientId, ModelVersion, RequestId, RoundId, Timestamp, WorkerId},
    report::{Refusal, RefusalKind},
    round::{
        BestVersion, ClientEvaluation, Command, Evaluation, JobEvent, MeasuredVersion, Outcome,
        Response, collection::not_leased, evaluation::LOSS_NOT_FINITE, pending::Pending,
    },
    settings::EvalSplit,
};

/// How many versions may wait for their evaluation, beside the one that is being evaluated, before training waits for them.
const MOST_WAITING: usize = 2;

impl RoundMachine {
    /// Whether this version may still be asked for: the global model, the best one, or one that is yet to be evaluated.
    pub fn needs(&self, version: ModelVersion) -> bool {
        let best = self.best().map(|best| best.measured.version);
        let evaluating = self.evaluating.as_ref().map(|pending| pending.version);
        version == self.version
            || best == Some(version)
            || evaluating == Some(version)
            || self.to_evaluate.iter().any(|due| due.version == version)
    }

    /// The best version so far.
    pub fn best(&self) -> Option<&BestVersion> {
        self.progress.best.as_ref()
    }

    /// The latest version that was measured.
    pub fn last_measured(&self) -> Option<&MeasuredVersion> {
        self.progress.last.as_ref()
    }

    /// Whether a version is measured once it is there.
    fn is_due(&self, version: ModelVersion) -> bool {
        let every = u64::from(self.config.progress.evaluation.every.max(1));
        let is_last = version.0 == u64::from(self.config.rounds);
        version.0 > 0 && (version.0.is_multiple_of(every) || is_last)
    }

    /// A new version takes its place behind those that are not evaluated yet.
    pub(super) fn queue_evaluation(
        &mut self,
        version: ModelVersion,
        round: RoundId,
        now: Timestamp,
    ) {
        if self.config.evaluation == EvaluationBy::Nobody || !self.is_due(version) {
            return;
        }
        let split = self.config.progress.evaluation.split();
        self.to_evaluate.push_back(Due {
            version,
            round,
            split,
        });
        self.evaluate_next(now);
    }

    /// Whether training has to wait, so that evaluations do not fall behind without a bound.
    pub(super) fn is_behind(&self) -> bool {
        // A rule decides at the same version in every run, however long evaluations take.
        let may_run_ahead = self.config.progress.stop.is_none();
        self.to_evaluate.len() >= MOST_WAITING || (!may_run_ahead && self.unevaluated() > 0)
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
        let Some(due) = self.to_evaluate.pop_front() else {
            return;
        };
        let Due {
            version,
            round,
            split,
        } = due;
        self.evaluating = Some(match self.config.evaluation {
            EvaluationBy::Nobody => return,
            EvaluationBy::Driver => {
                self.commands
                    .push_back(Command::Evaluate { version, split });
                Pending::by_driver(version, round).on(split)
            }
            EvaluationBy::Workers => {
                let workers: Vec<_> = self.leases.workers().map(|(worker, _)| worker).collect();
                self.wake(workers);
                // Counted from its turn, not from its commit: a version that waits behind another one must not expire
                // meanwhile.
                let deadline = now + Duration::from_secs(self.config.limits.evaluation_timeout);
                let clients = self.evaluators();
                let mut pending = Pending::by_clients(version, round, &clients, deadline).on(split);
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
        let evaluating = self.evaluating.take();
        skipped.extend(evaluating.map(|pending| (pending.version, pending.split)));
        skipped.extend(
            self.to_evaluate
                .drain(..)
                .map(|due| (due.version, due.split)),
        );
        for (version, split) in skipped {
            self.log(JobEvent::Evaluated {
                version,
                split,
                evaluation: None,
                reason: Some("the job ended first".to_string()),
                by_client: Vec::new(),
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
        of: (ModelVersion, EvalSplit),
        evaluation: Result<Evaluation, String>,
    ) {
        let response = match self.judge_share(worker, client, of) {
            Ok(()) => Response::Accepted,
            Err(refusal) => Response::Refused(refusal),
        };
        // The answer goes out first: whether the share is still of use is no concern of its sender.
        let is_accepted = response == Response::Accepted;
        self.respond(request, response);
        if let Some(pending) = &mut self.evaluating
            && is_accepted
            && (pending.version, pending.split) == of
        {
            pending.take(client, evaluation);
        }
    }

    /// A share that is in already, or not wanted any more, is accepted from any worker, and changes nothing.
    fn judge_share(
        &self,
        worker: WorkerId,
        client: ClientId,
        (version, split): (ModelVersion, EvalSplit),
    ) -> Result<(), Refusal> {
        self.client(client)?;
        // Older versions are accepted below, and pass over: their evaluation is over.
        if version > self.version {
            let detail = format!("there is no version {version}");
            return Err(Refusal::new(RefusalKind::NotFound, detail));
        }
        let is_open = self
            .evaluation(version, split)
            .is_some_and(|pending| pending.is_open(client));
        if is_open && self.leases.holder(client) != Some(worker) {
            Err(not_leased(worker, client))
        } else {
            Ok(())
        }
    }

    fn evaluation(&self, version: ModelVersion, split: EvalSplit) -> Option<&Pending> {
        self.evaluating
            .as_ref()
            .filter(|pending| (pending.version, pending.split) == (version, split))
    }

    pub(super) fn evaluated(
        &mut self,
        version: ModelVersion,
        split: EvalSplit,
        evaluation: Result<Evaluation, String>,
    ) {
        let Some(pending) = self.evaluation(version, split) else {
            return;
        };
        let (round, by_client) = (pending.round, pending.by_client());
        self.evaluating = None;
        let checked = evaluation.and_then(|evaluation| {
            // A mean over nothing is no measurement, and would be shown as an accuracy of 0.
            if evaluation.examples == 0 {
                return Err(format!("the {split} split has no examples"));
            }
            evaluation.checked()
        });
        self.note_evaluation((version, round), split, &checked);
        self.log_evaluation(version, split, checked, by_client);
        self.tell_of_divergence();
    }

    /// What an evaluation says of the job's progress.
    fn note_evaluation(
        &mut self,
        of: (ModelVersion, RoundId),
        split: EvalSplit,
        evaluation: &Result<Evaluation, String>,
    ) {
        let rules = &self.config.progress;
        match evaluation {
            Ok(evaluation) => self.progress.evaluated(rules, of, split, evaluation),
            // Of a share, the reason begins with its client.
            Err(reason) if reason.ends_with(LOSS_NOT_FINITE) => {
                self.progress
                    .check_loss(rules, split.name(), f64::NAN, f64::NAN);
            }
            Err(_) => {}
        }
    }

    fn log_evaluation(
        &mut self,
        version: ModelVersion,
        split: EvalSplit,
        evaluation: Result<Evaluation, String>,
        by_client: Vec<ClientEvaluation>,
    ) {
        let (evaluation, reason) = match evaluation {
            Ok(evaluation) => (Some(evaluation), None),
            Err(reason) => (None, Some(reason)),
        };
        self.log(JobEvent::Evaluated {
            version,
            split,
            evaluation,
            reason,
            by_client,
        });
    }

    /// Says once that training diverges, of a job that no rule ends.
    pub(super) fn tell_of_divergence(&mut self) {
        if self.progress.is_told {
            return;
        }
        if let Some(reason) = self.progress.diverges.clone() {
            self.progress.is_told = true;
            self.log(JobEvent::Diverges { reason });
        }
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
            let (version, split, result) = (pending.version, pending.split, pending.result());
            self.evaluated(version, split, result);
            self.evaluate_next(now);
        }
        if self.phase == Phase::CatchingUp && !self.is_behind() {
            self.begin_round(now);
        }
        if self.phase == Phase::Finishing && self.unevaluated() == 0 {
            self.conclude(now);
        }
    }

    /// Nothing is being evaluated, and no further round begins: evaluates what the job's end needs, and ends the job once that
    /// is done.
    fn conclude(&mut self, now: Timestamp) {
        if self.config.evaluation != EvaluationBy::Nobody {
            self.queue_last_evaluations();
            self.evaluate_next(now);
        }
        if self.unevaluated() > 0 {
            // By workers that are gone, it may be over at once.
            return self.check_evaluations(now);
        }
        match self.progress.stop.take() {
            Some((rule, reason)) => self.end(Outcome::Stopped { rule, reason }),
            None => self.end(Outcome::Completed),
        }
    }

    /// The final version was not due if a rule ended the rounds, or if there are none. With a validation split, the test split is
    /// for the final version and for the best one.
    fn queue_last_evaluations(&mut self) {
        let split = self.config.progress.evaluation.split();
        let last = (self.version, self.last_committed);
        // Alone, since it may become the best version.
        if !self.is_due(self.version) && self.queue_last(last, split) {
            return;
        }
        if split == EvalSplit::Test {
            return;
        }
        self.queue_last(last, EvalSplit::Test);
        if let Some(best) = self.best() {
            let best = (best.measured.version, best.measured.round);
            self.queue_last(best, EvalSplit::Test);
        }
    }

    /// Queues one of the last evaluations, unless that was done before; whether it did.
    fn queue_last(&mut self, (version, round): (ModelVersion, RoundId), split: EvalSplit) -> bool {
        if self.last_evaluations.contains(&(version, split)) {
            return false;
        }
        self.last_evaluations.push((version, split));
        self.to_evaluate.push_back(Due {
            version,
            round,
            split,
        });
        true
    }
}
