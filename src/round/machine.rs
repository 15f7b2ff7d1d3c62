//! One job's control plane.
//!
//! A round goes through planning, collecting, aggregating and publishing. It *commits* when its goal is met, or when
//! nobody is left to wait for or its deadline comes and the quorum is there; else it is *abandoned* with its reason and
//! tried again, a bounded number of times. Every state that waits has a deadline or a command under way.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use super::{
    ClientSpec, Command, Evaluation, Event, JobEvent, Outcome, Response, Task, TaskKind,
    collection::{Collection, Offer, Upload, late},
    evaluation::Pending,
    leases::{Leases, Move},
    planted::{Bug, planted},
};
use crate::{
    ids::{ClientId, ModelVersion, RequestId, RoundId, Timestamp, WorkerId},
    job::RoundLimits,
    report::{Refusal, RefusalKind, ReportMetadata},
    strategy::{Aggregation, ClientInfo, RoundPlan},
};

/// Closed rounds whose verdicts are remembered, so that a report that is sent again gets the same answer.
const REMEMBERED_ROUNDS: usize = 8;

/// What a round machine needs to know of its job.
#[derive(Debug, Clone)]
pub struct MachineConfig {
    /// Number of rounds to commit.
    pub rounds: u32,
    /// Quorum, deadlines and attempts.
    pub limits: RoundLimits,
    /// Who evaluates.
    pub evaluation: EvaluationBy,
}

/// Who evaluates the versions of this job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvaluationBy {
    /// The driver, on [`Command::Evaluate`].
    Driver,
    /// The workers, each client a share.
    Workers,
    /// Nobody.
    Nobody,
}

/// One job's control plane. See the module's documentation for how to drive it.
#[derive(Debug)]
pub struct RoundMachine {
    config: MachineConfig,
    phase: Phase,
    clients: Vec<ClientSpec>,
    leases: Leases,
    /// The number of the last attempt that was begun.
    round: RoundId,
    version: ModelVersion,
    /// Attempts at the next version that were abandoned.
    abandoned: u32,
    /// The round that is open or being closed.
    current: Option<Collection>,
    /// Rounds that ended, the latest last.
    closed: VecDeque<Collection>,
    evaluations: Vec<Pending>,
    commands: VecDeque<Command>,
}

#[derive(Debug, Clone, PartialEq)]
enum Phase {
    /// Until there are enough workers to begin with.
    Waiting {
        deadline: Timestamp,
    },
    Preparing,
    /// Until there are enough clients for a round.
    Gathering {
        deadline: Timestamp,
    },
    Planning,
    Collecting,
    Aggregating,
    Publishing {
        train_loss: Option<f64>,
    },
    /// All rounds are committed; versions are still being evaluated.
    Finishing,
    Ended(Outcome),
}

/// Where a job stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoundStatus {
    /// One word: waiting, preparing, gathering, planning, collecting, aggregating, publishing, finishing, completed,
    /// failed, cancelled.
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
    /// A job that begins now.
    pub fn new(config: MachineConfig, now: Timestamp) -> Self {
        let deadline = now + Duration::from_secs(config.limits.start_timeout);
        let mut machine = Self {
            config,
            phase: Phase::Waiting { deadline },
            clients: Vec::new(),
            leases: Leases::default(),
            round: RoundId(0),
            version: ModelVersion(0),
            abandoned: 0,
            current: None,
            closed: VecDeque::new(),
            evaluations: Vec::new(),
            commands: VecDeque::new(),
        };
        let reason = machine.status().detail;
        machine.log(JobEvent::Waiting { reason });
        machine
    }

    /// The next order. Drain it to `None` after each event.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// When [`Event::Tick`] is due next.
    pub fn poll_deadline(&self) -> Option<Timestamp> {
        let phase = match &self.phase {
            Phase::Waiting { deadline } | Phase::Gathering { deadline } => Some(*deadline),
            Phase::Collecting => self.current.as_ref().map(|current| current.deadline),
            _ => None,
        };
        self.evaluations
            .iter()
            .filter_map(|pending| pending.deadline)
            .chain(phase)
            .min()
    }

    /// Takes one event. What follows from it comes out of [`RoundMachine::poll_command`].
    pub fn handle(&mut self, event: Event, now: Timestamp) {
        match event {
            Event::Tick => {}
            Event::WorkerJoined {
                worker,
                slots,
                replaces,
            } => self.worker_joined(worker, slots, replaces, now),
            Event::WorkerLost { worker } => self.worker_lost(worker, now),
            Event::Prepared(prepared) => self.prepared(prepared, now),
            Event::Planned { round, plan } => self.planned(round, plan, now),
            Event::TaskRequested {
                request,
                worker,
                busy,
            } => {
                let response = self
                    .next_task(worker, &busy)
                    .map_or(Response::Idle, Response::Task);
                self.respond(request, response);
            }
            Event::ReportOffered {
                request,
                worker,
                client,
                round,
                metadata,
            } => {
                self.report_offered(request, worker, client, round, &metadata);
            }
            Event::ReportStored {
                request,
                upload,
                client,
                round,
                stored,
            } => {
                self.report_stored(request, upload, client, round, stored);
            }
            Event::TaskFailed {
                request,
                worker,
                client,
                round,
                reason,
            } => {
                self.task_failed(request, worker, client, round, reason);
            }
            Event::ShareEvaluated {
                request,
                worker,
                client,
                version,
                evaluation,
            } => {
                self.share_evaluated(request, worker, client, version, evaluation);
            }
            Event::Aggregated { round, aggregation } => self.aggregated(round, aggregation, now),
            Event::Published { version, published } => self.published(version, published, now),
            Event::Evaluated {
                version,
                evaluation,
            } => self.evaluated(version, evaluation),
            Event::Cancelled { request } => self.cancelled(request),
        }
        self.check_deadlines(now);
    }

    /// Where the job stands.
    pub fn status(&self) -> RoundStatus {
        let (accepted, goal) = match &self.current {
            Some(current) => (current.accepted_count(), current.plan.goal),
            None => (0, 0),
        };
        let (phase, detail) = self.describe(accepted, goal);
        RoundStatus {
            phase,
            detail,
            round: self.round,
            version: self.version,
            accepted,
            goal,
        }
    }

    /// Whether somebody may still ask for this version: the global model, or one that is being evaluated.
    pub fn needs(&self, version: ModelVersion) -> bool {
        version == self.version
            || self
                .evaluations
                .iter()
                .any(|pending| pending.version == version)
    }

    /// Whether the result of this task would still be taken from this worker. A worker drops tasks for which it
    /// would not.
    pub fn wants(&self, worker: WorkerId, task: &Task) -> bool {
        if self.leases.holder(task.client) != Some(worker) {
            return false;
        }
        match task.kind {
            TaskKind::Train { .. } => self.current.as_ref().is_some_and(|current| {
                current.round == task.round
                    && !current.closed
                    && current.is_outstanding(task.client)
            }),
            TaskKind::Evaluate { .. } => self
                .evaluations
                .iter()
                .any(|pending| pending.version == task.version && pending.is_open(task.client)),
        }
    }

    /// The worker that holds a client's lease.
    pub fn lease(&self, client: ClientId) -> Option<WorkerId> {
        self.leases.holder(client)
    }

    /// How many clients each live worker acts for.
    pub fn clients_of(&self, worker: WorkerId) -> usize {
        self.leases.held_by(worker).count()
    }

    /// How the job ended, once it has.
    pub fn outcome(&self) -> Option<&Outcome> {
        match &self.phase {
            Phase::Ended(outcome) => Some(outcome),
            _ => None,
        }
    }

    // Workers.

    fn worker_joined(
        &mut self,
        worker: WorkerId,
        slots: u32,
        replaces: Option<WorkerId>,
        now: Timestamp,
    ) {
        let moves = self.leases.join(worker, slots, replaces);
        self.apply(moves);
        match self.phase {
            Phase::Waiting { .. }
                if self.leases.workers().len() >= self.config.limits.min_workers as usize =>
            {
                self.phase = Phase::Preparing;
                let workers = self
                    .leases
                    .workers()
                    .iter()
                    .map(|(worker, slots)| (*worker, *slots))
                    .collect();
                self.commands.push_back(Command::Prepare { workers });
            }
            Phase::Gathering { .. } => self.begin_round(now),
            _ => {}
        }
    }

    fn worker_lost(&mut self, worker: WorkerId, now: Timestamp) {
        if !self.leases.workers().contains_key(&worker) {
            return;
        }
        let moves = self.leases.lose(worker);
        self.apply(moves);
        let _ = now;
    }

    /// Carries lease changes into the round that is open: tasks go out again, and a client whose data went with its
    /// worker drops out.
    fn apply(&mut self, moves: Vec<Move>) {
        for Move { client, from, to } in moves {
            self.log(JobEvent::Leased { client, from, to });
            let at_home = self
                .clients
                .get(client.0 as usize)
                .is_some_and(|spec| spec.home.is_some());
            if let Some(current) = self.current.as_mut().filter(|current| !current.closed) {
                current.release(client);
                let reason = "the worker that has its data is gone";
                let refusal = Refusal::new(RefusalKind::Late, reason);
                if at_home && to.is_none() && current.fail(client, refusal) {
                    let round = current.round;
                    self.log(JobEvent::ClientFailed {
                        round,
                        client,
                        reason: reason.to_string(),
                    });
                }
            }
            if let Some(worker) = to {
                self.commands.push_back(Command::Wake { worker });
            }
        }
    }

    fn next_task(&mut self, worker: WorkerId, busy: &[Task]) -> Option<Task> {
        let held: Vec<_> = self.leases.held_by(worker).collect();
        let is_free = |task: &Task| !busy.iter().any(|other| other.is_same_work(task));
        for pending in &self.evaluations {
            for client in held
                .iter()
                .copied()
                .filter(|client| pending.is_open(*client))
            {
                let Some((share, shares)) = pending.share(client) else {
                    continue;
                };
                let kind = TaskKind::Evaluate { share, shares };
                let task = Task {
                    client,
                    round: pending.round,
                    version: pending.version,
                    kind,
                };
                if is_free(&task) {
                    return Some(task);
                }
            }
        }
        let current = self.current.as_mut().filter(|current| !current.closed)?;
        for client in held
            .into_iter()
            .filter(|client| current.is_pending(*client))
        {
            let kind = TaskKind::Train {
                training: current.plan.training.clone(),
                deadline: current.deadline,
            };
            let task = Task {
                client,
                round: current.round,
                version: current.version,
                kind,
            };
            if is_free(&task) {
                let round = current.round;
                if current.issue(client, worker) {
                    self.log(JobEvent::TaskIssued {
                        round,
                        client,
                        worker,
                    });
                }
                return Some(task);
            }
        }
        None
    }

    // Reports.

    fn report_offered(
        &mut self,
        request: RequestId,
        worker: WorkerId,
        client: ClientId,
        round: RoundId,
        metadata: &ReportMetadata,
    ) {
        let Some(partition) = self
            .clients
            .get(client.0 as usize)
            .map(|spec| spec.examples)
        else {
            let refusal = Refusal::new(
                RefusalKind::UnknownClient,
                format!("the job has no client {client}"),
            );
            return self.refuse(request, round, client, worker, refusal);
        };
        let lease = self.leases.holder(client);
        let offer = match self.collection(round) {
            Some(collection) => {
                collection.offer(request, worker, client, metadata, lease, partition)
            }
            None => Offer::Refuse(self.no_such_round(round)),
        };
        match offer {
            Offer::Admit => self.respond(request, Response::Admitted),
            Offer::AlreadyAccepted => self.respond(request, Response::Accepted),
            Offer::Refuse(refusal) => self.refuse(request, round, client, worker, refusal),
            Offer::Fail(refusal) => {
                self.refuse(request, round, client, worker, refusal.clone());
                self.log(JobEvent::ClientFailed {
                    round,
                    client,
                    reason: refusal.detail,
                });
            }
        }
    }

    fn report_stored(
        &mut self,
        request: RequestId,
        upload: RequestId,
        client: ClientId,
        round: RoundId,
        stored: Result<(), Refusal>,
    ) {
        let Some(collection) = self.collection(round) else {
            return self.respond(request, Response::Refused(late(round)));
        };
        match collection.stored(client, upload, stored) {
            Upload::Accepted { worker, examples } => {
                self.log(JobEvent::ReportAccepted {
                    round,
                    client,
                    worker,
                    examples,
                });
                self.respond(request, Response::Accepted);
            }
            Upload::Refused {
                worker,
                refusal,
                failed,
            } => {
                match worker {
                    Some(worker) => self.refuse(request, round, client, worker, refusal.clone()),
                    None => self.respond(request, Response::Refused(refusal.clone())),
                }
                if failed && refusal.kind != RefusalKind::Late {
                    self.log(JobEvent::ClientFailed {
                        round,
                        client,
                        reason: refusal.detail,
                    });
                }
            }
        }
    }

    fn task_failed(
        &mut self,
        request: RequestId,
        worker: WorkerId,
        client: ClientId,
        round: RoundId,
        reason: String,
    ) {
        if self.leases.holder(client) != Some(worker) {
            let detail = format!("worker {worker} does not hold the lease of client {client}");
            return self.respond(
                request,
                Response::Refused(Refusal::new(RefusalKind::NotLeased, detail)),
            );
        }
        let open = self
            .current
            .as_mut()
            .filter(|current| current.round == round && !current.closed);
        let refusal = Refusal::new(
            RefusalKind::Conflict,
            format!("client {client} failed: {reason}"),
        );
        if open.is_some_and(|current| current.fail(client, refusal)) {
            self.log(JobEvent::ClientFailed {
                round,
                client,
                reason,
            });
        }
        self.respond(request, Response::Accepted);
    }

    /// The round of this number, as long as it is remembered.
    fn collection(&mut self, round: RoundId) -> Option<&mut Collection> {
        self.current
            .iter_mut()
            .chain(&mut self.closed)
            .find(|collection| collection.round == round)
    }

    fn no_such_round(&self, round: RoundId) -> Refusal {
        match round > self.round || self.is_planning(round) || round == RoundId(0) {
            true => Refusal::new(
                RefusalKind::WrongRound,
                format!("round {round} has not begun"),
            ),
            false => late(round),
        }
    }

    fn is_planning(&self, round: RoundId) -> bool {
        self.phase == Phase::Planning && round == self.round
    }

    // Rounds.

    fn prepared(&mut self, prepared: Result<Vec<ClientSpec>, String>, now: Timestamp) {
        if self.phase != Phase::Preparing {
            return;
        }
        match prepared {
            Ok(clients) if clients.is_empty() => self.fail("there is no client".to_string()),
            Ok(clients) => {
                self.log(JobEvent::Started {
                    clients: clients.len() as u32,
                });
                let homes: Vec<_> = ids(&clients)
                    .map(|id| (id, clients[id.0 as usize].home))
                    .collect();
                self.clients = clients;
                let moves = self.leases.start(homes);
                self.apply(moves);
                self.begin_round(now);
            }
            Err(reason) => self.fail(reason),
        }
    }

    fn begin_round(&mut self, now: Timestamp) {
        if self.version.0 >= u64::from(self.config.rounds) {
            self.phase = Phase::Finishing;
            return self.finish_if_evaluated();
        }
        let moves = self.leases.rebalance();
        self.apply(moves);
        let clients: Vec<_> = self
            .available()
            .map(|id| ClientInfo {
                id,
                examples: self.clients[id.0 as usize].examples,
            })
            .collect();
        if clients.is_empty() || clients.len() < self.config.limits.min_updates as usize {
            if !matches!(self.phase, Phase::Gathering { .. }) {
                self.phase = Phase::Gathering {
                    deadline: now + Duration::from_secs(self.config.limits.round_timeout),
                };
                let reason = self.status().detail;
                self.log(JobEvent::Waiting { reason });
            }
            return;
        }
        self.round = self.round.next();
        self.phase = Phase::Planning;
        self.commands.push_back(Command::Plan {
            round: self.round,
            version: self.version,
            clients,
        });
    }

    /// The clients that some live worker can act for.
    fn available(&self) -> impl Iterator<Item = ClientId> + '_ {
        ids(&self.clients).filter(|client| self.leases.holder(*client).is_some())
    }

    fn planned(&mut self, round: RoundId, plan: Result<RoundPlan, String>, now: Timestamp) {
        if !self.is_planning(round) {
            return;
        }
        let plan = match plan.and_then(|plan| self.check_plan(&plan).map(|()| plan)) {
            Ok(plan) => plan,
            Err(reason) => return self.abandon(reason, now),
        };
        let deadline = now + Duration::from_secs(self.config.limits.round_timeout);
        self.log(JobEvent::RoundStarted {
            round,
            version: self.version,
            cohort: plan.cohort.clone(),
            goal: plan.goal,
            quorum: plan.quorum,
        });
        let holders: BTreeSet<_> = plan
            .cohort
            .iter()
            .filter_map(|client| self.leases.holder(*client))
            .collect();
        let mut collection = Collection::new(round, self.version, plan, deadline);
        // A worker with its own data can have gone while the strategy planned.
        let gone: Vec<_> = collection
            .plan
            .cohort
            .iter()
            .copied()
            .filter(|client| {
                self.leases.holder(*client).is_none()
                    && self.clients[client.0 as usize].home.is_some()
            })
            .collect();
        for client in &gone {
            collection.fail(
                *client,
                Refusal::new(RefusalKind::Late, "the worker that has its data is gone"),
            );
        }
        self.current = Some(collection);
        self.phase = Phase::Collecting;
        self.commands
            .extend(holders.into_iter().map(|worker| Command::Wake { worker }));
    }

    fn check_plan(&self, plan: &RoundPlan) -> Result<(), String> {
        let problem = |what: &str| Err(format!("the strategy's plan is not valid: {what}"));
        if !plan.cohort.is_sorted_by(|a, b| a < b) {
            return problem("the cohort is not in rising order");
        }
        if plan
            .cohort
            .iter()
            .any(|client| client.0 as usize >= self.clients.len())
        {
            return problem("the cohort has a client that the job has not");
        }
        if plan.goal > plan.cohort.len() {
            return problem("the goal is above the cohort");
        }
        if plan.quorum == 0 || plan.quorum > plan.goal {
            return problem("the quorum is not between 1 and the goal");
        }
        Ok(())
    }

    /// Closes the round where there is nothing more to wait for.
    fn check_collection(&mut self, now: Timestamp) {
        let Some(current) = self
            .current
            .as_mut()
            .filter(|_| self.phase == Phase::Collecting)
        else {
            return;
        };
        let accepted = current.accepted_count();
        let is_over =
            accepted >= current.plan.goal || current.outstanding() == 0 || now >= current.deadline;
        if !is_over {
            return;
        }
        current.closed = true;
        let quorum = if planted(Bug::QuorumIgnored) {
            1
        } else {
            current.plan.quorum
        };
        if accepted >= quorum {
            let (round, base) = (current.round, current.version);
            let accepted = current.accepted();
            self.phase = Phase::Aggregating;
            self.commands.push_back(Command::Aggregate {
                round,
                base,
                accepted,
            });
            return;
        }
        let why = match current.outstanding() {
            0 => "every client has answered or failed",
            _ => "the deadline has passed",
        };
        let reason = format!(
            "{why} with {accepted} of {} accepted reports that the quorum needs",
            current.plan.quorum
        );
        self.abandon(reason, now);
    }

    fn aggregated(
        &mut self,
        round: RoundId,
        aggregation: Result<Aggregation, String>,
        now: Timestamp,
    ) {
        if self.phase != Phase::Aggregating || round != self.round {
            return;
        }
        match aggregation {
            Ok(aggregation) => {
                self.phase = Phase::Publishing {
                    train_loss: aggregation.train_loss,
                };
                self.commands.push_back(Command::Publish {
                    round,
                    version: self.version.next(),
                });
            }
            Err(reason) => self.abandon(reason, now),
        }
    }

    fn published(&mut self, version: ModelVersion, published: Result<(), String>, now: Timestamp) {
        let Phase::Publishing { train_loss } = self.phase else {
            return;
        };
        if version != self.version.next() {
            return;
        }
        if let Err(reason) = published {
            return self.abandon(reason, now);
        }
        self.version = version;
        self.abandoned = 0;
        let round = self.round;
        let clients = self
            .close_current()
            .iter()
            .map(|(client, _)| *client)
            .collect();
        self.commands.push_back(Command::Discard { round });
        self.log(JobEvent::RoundCommitted {
            round,
            version,
            clients,
            train_loss,
        });
        self.begin_evaluation(version, round, now);
        self.begin_round(now);
    }

    /// Ends the current round without a new version.
    fn abandon(&mut self, reason: String, now: Timestamp) {
        self.close_current();
        let round = self.round;
        self.commands.push_back(Command::Discard { round });
        self.log(JobEvent::RoundAbandoned {
            round,
            reason: reason.clone(),
        });
        self.abandoned += 1;
        if self.abandoned >= self.config.limits.max_attempts {
            return self.fail(format!(
                "{} rounds in a row were abandoned, the last because {reason}",
                self.abandoned
            ));
        }
        self.begin_round(now);
    }

    fn close_current(&mut self) -> Vec<(ClientId, RequestId)> {
        let Some(mut current) = self.current.take() else {
            return Vec::new();
        };
        current.closed = true;
        let accepted = current.accepted();
        self.closed.push_back(current);
        if self.closed.len() > REMEMBERED_ROUNDS {
            self.closed.pop_front();
        }
        accepted
    }

    // Evaluations.

    fn begin_evaluation(&mut self, version: ModelVersion, round: RoundId, now: Timestamp) {
        match self.config.evaluation {
            EvaluationBy::Nobody => {}
            EvaluationBy::Driver => {
                self.evaluations
                    .push(Pending::new(version, round, &[], None));
                self.commands.push_back(Command::Evaluate { version });
            }
            EvaluationBy::Workers => {
                let clients: Vec<_> = self.available().collect();
                let deadline = now + Duration::from_secs(self.config.limits.evaluation_timeout);
                self.evaluations
                    .push(Pending::new(version, round, &clients, Some(deadline)));
                let workers = self.leases.workers().keys();
                self.commands
                    .extend(workers.map(|worker| Command::Wake { worker: *worker }));
            }
        }
    }

    fn share_evaluated(
        &mut self,
        request: RequestId,
        worker: WorkerId,
        client: ClientId,
        version: ModelVersion,
        evaluation: Result<Evaluation, String>,
    ) {
        if self.leases.holder(client) != Some(worker) {
            let detail = format!("worker {worker} does not hold the lease of client {client}");
            return self.respond(
                request,
                Response::Refused(Refusal::new(RefusalKind::NotLeased, detail)),
            );
        }
        let is_number = |evaluation: &Evaluation| {
            evaluation.loss.is_finite() && evaluation.accuracy.is_finite()
        };
        let evaluation = evaluation.and_then(|evaluation| match is_number(&evaluation) {
            true => Ok(evaluation),
            false => Err("a measurement is not a finite number".to_string()),
        });
        if let Some(pending) = self
            .evaluations
            .iter_mut()
            .find(|pending| pending.version == version)
        {
            pending.take(client, evaluation);
            if pending.is_done() {
                let result = pending.result();
                self.evaluated(version, result);
            }
        }
        self.respond(request, Response::Accepted);
    }

    fn evaluated(&mut self, version: ModelVersion, evaluation: Result<Evaluation, String>) {
        let Some(index) = self
            .evaluations
            .iter()
            .position(|pending| pending.version == version)
        else {
            return;
        };
        self.evaluations.remove(index);
        let (evaluation, reason) = match evaluation {
            Ok(evaluation) => (Some(evaluation), None),
            Err(reason) => (None, Some(reason)),
        };
        self.log(JobEvent::Evaluated {
            version,
            evaluation,
            reason,
        });
        self.finish_if_evaluated();
    }

    fn finish_if_evaluated(&mut self) {
        if self.phase == Phase::Finishing && self.evaluations.is_empty() {
            self.end(Outcome::Completed);
        }
    }

    // Ends.

    fn cancelled(&mut self, request: RequestId) {
        if self.outcome().is_some() {
            let refusal = Refusal::new(RefusalKind::Conflict, "the job has ended already");
            return self.respond(request, Response::Refused(refusal));
        }
        self.respond(request, Response::Accepted);
        if self.current.is_some() {
            self.close_current();
            self.commands
                .push_back(Command::Discard { round: self.round });
        }
        self.end(Outcome::Cancelled);
    }

    fn fail(&mut self, reason: String) {
        self.end(Outcome::Failed { reason });
    }

    fn end(&mut self, outcome: Outcome) {
        self.evaluations.clear();
        self.phase = Phase::Ended(outcome.clone());
        self.log(JobEvent::Ended(outcome.clone()));
        self.commands.push_back(Command::End(outcome));
    }

    fn check_deadlines(&mut self, now: Timestamp) {
        match self.phase {
            Phase::Waiting { deadline } | Phase::Gathering { deadline } if now >= deadline => {
                let seconds = match self.phase {
                    Phase::Waiting { .. } => self.config.limits.start_timeout,
                    _ => self.config.limits.round_timeout,
                };
                let detail = self.status().detail;
                self.fail(format!("after {seconds} s still {detail}"));
            }
            _ => self.check_collection(now),
        }
        let due = |pending: &&Pending| pending.deadline.is_some_and(|deadline| now >= deadline);
        while let Some(pending) = self.evaluations.iter().find(due) {
            let (version, result) = (pending.version, pending.result());
            self.evaluated(version, result);
        }
    }

    // Answers and words.

    fn respond(&mut self, request: RequestId, response: Response) {
        self.commands
            .push_back(Command::Respond { request, response });
    }

    fn refuse(
        &mut self,
        request: RequestId,
        round: RoundId,
        client: ClientId,
        worker: WorkerId,
        refusal: Refusal,
    ) {
        self.log(JobEvent::ReportRefused {
            round,
            client,
            worker,
            refusal: refusal.clone(),
        });
        self.respond(request, Response::Refused(refusal));
    }

    fn log(&mut self, event: JobEvent) {
        self.commands.push_back(Command::Log(event));
    }

    fn describe(&self, accepted: usize, goal: usize) -> (&'static str, String) {
        let limits = &self.config.limits;
        let workers = self.leases.workers().len();
        match &self.phase {
            Phase::Waiting { .. } => (
                "waiting",
                format!(
                    "waiting for workers: {workers} of at least {} are there",
                    limits.min_workers
                ),
            ),
            Phase::Preparing => ("preparing", "dealing the data over the clients".to_string()),
            Phase::Gathering { .. } => (
                "gathering",
                format!(
                    "waiting for clients: {} of at least {} have a live worker",
                    self.available().count(),
                    limits.min_updates.max(1)
                ),
            ),
            Phase::Planning => ("planning", format!("planning round {}", self.round)),
            Phase::Collecting => {
                let mut detail = format!("round {}: {accepted} of {goal} reports", self.round);
                if self.leases.orphans() > 0 {
                    detail.push_str(&format!(
                        "; {} clients have no live worker",
                        self.leases.orphans()
                    ));
                }
                ("collecting", detail)
            }
            Phase::Aggregating => (
                "aggregating",
                format!("folding {accepted} reports of round {}", self.round),
            ),
            Phase::Publishing { .. } => (
                "publishing",
                format!("storing version {}", self.version.next()),
            ),
            Phase::Finishing => ("finishing", "waiting for the last evaluation".to_string()),
            Phase::Ended(Outcome::Completed) => {
                ("completed", format!("{} rounds committed", self.version))
            }
            Phase::Ended(Outcome::Failed { reason }) => ("failed", reason.clone()),
            Phase::Ended(Outcome::Cancelled) => {
                ("cancelled", "cancelled by the operator".to_string())
            }
        }
    }
}

fn ids(clients: &[ClientSpec]) -> impl Iterator<Item = ClientId> + use<> {
    (0..clients.len() as u32).map(ClientId)
}
