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

impl RoundMachine {
    /// Whether somebody may still ask for this version: the global model, or one that is being evaluated.
    pub fn needs(&self, version: ModelVersion) -> bool {
        version == self.version || self.evaluation(version).is_some()
    }

    pub(super) fn begin_evaluation(
        &mut self,
        version: ModelVersion,
        round: RoundId,
        now: Timestamp,
    ) {
        let pending = match self.config.evaluation {
            EvaluationBy::Nobody => return,
            EvaluationBy::Driver => {
                self.commands.push_back(Command::Evaluate { version });
                Pending::by_driver(version, round)
            }
            EvaluationBy::Workers => {
                let workers: Vec<_> = self.leases.workers().map(|(worker, _)| worker).collect();
                self.wake(workers);
                let deadline = now + Duration::from_secs(self.config.limits.evaluation_timeout);
                let clients = self.evaluators();
                let mut pending = Pending::by_clients(version, round, &clients, deadline);
                for client in clients {
                    pending.place(client, self.leases.holder(client));
                }
                pending
            }
        };
        self.evaluations.push(pending);
    }

    /// Who takes a share: the clients with a live worker, or, without any, those that the next worker can act for.
    fn evaluators(&self) -> Vec<ClientId> {
        let available: Vec<_> = self.available().map(|(client, _)| client).collect();
        if !available.is_empty() {
            return available;
        }
        self.numbered()
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
        let is_accepted = response == Response::Accepted;
        self.respond(request, response);
        let pending = self
            .evaluations
            .iter_mut()
            .find(|pending| is_accepted && pending.version == version);
        if let Some(pending) = pending {
            pending.take(client, evaluation);
        }
    }

    /// A share that is in already, or not wanted any more, is accepted whoever sends it, and changes nothing.
    fn judge_share(
        &self,
        worker: WorkerId,
        client: ClientId,
        version: ModelVersion,
    ) -> Result<(), Refusal> {
        self.client(client)?;
        if version > self.version {
            let detail = format!("there is no version {version}");
            return Err(Refusal::new(RefusalKind::NotFound, detail));
        }
        let is_open = self
            .evaluation(version)
            .is_some_and(|pending| pending.is_open(client));
        match is_open && self.leases.holder(client) != Some(worker) {
            true => Err(not_leased(worker, client)),
            false => Ok(()),
        }
    }

    fn evaluation(&self, version: ModelVersion) -> Option<&Pending> {
        self.evaluations
            .iter()
            .find(|pending| pending.version == version)
    }

    pub(super) fn evaluated(
        &mut self,
        version: ModelVersion,
        evaluation: Result<Evaluation, String>,
    ) {
        let position = self
            .evaluations
            .iter()
            .position(|pending| pending.version == version);
        let Some(position) = position else {
            return;
        };
        self.evaluations.remove(position);
        let checked = evaluation.and_then(|evaluation| {
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

    /// Concludes the evaluations that have all that will come, and the job after the last.
    pub(super) fn check_evaluations(&mut self, now: Timestamp) {
        let is_over = |pending: &&Pending| {
            pending.is_done() || pending.deadline.is_some_and(|deadline| now >= deadline)
        };
        while let Some(pending) = self.evaluations.iter().find(is_over) {
            let (version, result) = (pending.version, pending.result());
            self.evaluated(version, result);
        }
        if self.phase == Phase::Finishing && self.evaluations.is_empty() {
            self.end(Outcome::Completed);
        }
    }
}
