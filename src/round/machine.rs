//! One job's control plane.
//!
//! A round goes through planning, collecting, aggregating and publishing. It *commits* when its goal is met, or when
//! nobody is left to wait for or its deadline comes, if the strategy folds at least the quorum; else it is *abandoned*
//! with its reason and tried again, a bounded number of times. Every state that waits has a deadline or a command under
//! way.
//!
//! ```text
//!                   enough workers          clients and data are fixed
//!   begin ─▶ Waiting ─────────▶ Preparing ──────────┐
//!                                                   ▼
//!      ┌───────────────────────────────────▶ begin a round ──▶ Finishing     all rounds are committed;
//!      │                                       │    │    │         │         versions are still evaluated
//!      │         two versions wait to be       │    │    │         ▼
//!      │         evaluated: CatchingUp ◀───────┘    │    │       Ended       also from every phase:
//!      │         too few clients have                │    │                   cancelled, or a wait too long
//!      │         a worker: Gathering ◀──────────────┘    │
//!      │                                                  ▼
//!      │  each, once it is over, begins          Dealing (if data is dealt again)
//!      │  the round again                                 │
//!      │                                                  ▼
//!      │                                              Planning ──▶ Collecting ──▶ Aggregating ──▶ Publishing
//!      │                                                  │             │              │              │
//!      ├──── abandoned, with its reason ◀─────────────────┴─────────────┴──────────────┴──────────────┤
//!      └──── committed: the version moves by one ◀─────────────────────────────────────────────────────┘
//! ```
//!
//! This file takes events in and hands commands out; what follows from an event stands beside it: [`workers`] (leases
//! and tasks), [`reports`] (verdicts), [`rounds`] (when a round begins), [`commits`] (how it ends), [`evaluations`], and
//! [`status`] (the same in words).

mod commits;
mod evaluations;
mod reports;
mod rounds;
mod status;
mod workers;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

#[cfg(test)]
pub(super) use commits::REMEMBERED_ROUNDS;
pub use status::RoundStatus;

use super::{
    ClientSpec, Command, Event, JobEvent, Outcome, Response, collection::Collection,
    leases::Leases, pending::Pending,
};
use crate::{
    ids::{ClientId, ModelVersion, RequestId, RoundId, Timestamp, WorkerId},
    report::{Refusal, RefusalKind},
    settings::RoundLimits,
    strategy::{Aggregation, ClientInfo},
};

/// What a round machine needs to know of its job.
#[derive(Debug, Clone)]
pub struct MachineConfig {
    /// Number of rounds to commit.
    pub rounds: u32,
    /// The number of the first round, at least 1.
    pub first_round: RoundId,
    /// Quorum, deadlines and attempts.
    pub limits: RoundLimits,
    /// Who evaluates.
    pub evaluation: EvaluationBy,
    /// Whether the data may be dealt again between rounds: each round then begins with [`Command::Deal`].
    pub deals: bool,
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
    /// The last round whose commit folded each client; a client that no commit has folded is not in it.
    basis: BTreeMap<ClientId, RoundId>,
    /// The round that is open or being closed.
    current: Option<Collection>,
    /// Rounds that ended, the latest last.
    closed: VecDeque<Collection>,
    /// The version that is being evaluated: the oldest of those that are not.
    evaluating: Option<Pending>,
    /// The versions whose turn comes after it, oldest first, each with the round that made it.
    to_evaluate: VecDeque<(ModelVersion, RoundId)>,
    commands: VecDeque<Command>,
    /// The workers that are there and can't train the job, in words.
    bystanders: String,
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
    /// Between rounds: the driver says whether the data is dealt again.
    Dealing,
    /// Between rounds: until fewer versions wait to be evaluated.
    CatchingUp,
    Planning,
    Collecting,
    Aggregating,
    Publishing {
        /// What was folded, and checked.
        aggregation: Aggregation,
    },
    /// All rounds are committed; versions are still being evaluated.
    Finishing,
    Ended(Outcome),
}

impl RoundMachine {
    /// A job that begins now. Next, [`RoundMachine::begin`] tells it of the workers that are there.
    pub fn new(config: MachineConfig, now: Timestamp) -> Self {
        let deadline = now + Duration::from_secs(config.limits.start_timeout);
        Self {
            round: RoundId(config.first_round.0.saturating_sub(1)),
            config,
            phase: Phase::Waiting { deadline },
            clients: Vec::new(),
            leases: Leases::default(),
            version: ModelVersion(0),
            abandoned: 0,
            basis: BTreeMap::new(),
            current: None,
            closed: VecDeque::new(),
            evaluating: None,
            to_evaluate: VecDeque::new(),
            commands: VecDeque::new(),
            bystanders: String::new(),
        }
    }

    /// Takes the workers that are there at the beginning, each with its slots. The log says what is waited for only if
    /// they are not enough.
    pub fn begin(&mut self, workers: &[(WorkerId, u32)], now: Timestamp) {
        for (worker, slots) in workers {
            let joined = Event::WorkerJoined {
                worker: *worker,
                slots: *slots,
                replaces: None,
            };
            self.handle(joined, now);
        }
        if matches!(self.phase, Phase::Waiting { .. }) {
            self.log_waiting();
        }
    }

    /// Whether it waits for workers or for clients.
    pub fn is_short_of_workers(&self) -> bool {
        matches!(self.phase, Phase::Waiting { .. } | Phase::Gathering { .. })
    }

    /// Says in words which live workers can't train this job and what they lack: a part of [`RoundMachine::status`], and
    /// of the reason why the job fails if it waits in vain. Empty if there are none.
    pub fn note_bystanders(&mut self, bystanders: String) {
        self.bystanders = bystanders;
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
        let evaluation = self
            .evaluating
            .as_ref()
            .and_then(|pending| pending.deadline);
        phase.into_iter().chain(evaluation).min()
    }

    /// Takes one event. What follows from it comes out of [`RoundMachine::poll_command`].
    pub fn handle(&mut self, event: Event, now: Timestamp) {
        // A deadline has passed for whatever comes after it, even if the driver's tick is late. But who is there is
        // best known before the next round begins.
        if !matches!(event, Event::WorkerJoined { .. } | Event::WorkerLost { .. }) {
            self.check_deadlines(now);
        }
        self.take(event, now);
        self.check_deadlines(now);
        self.end_unneeded_uploads();
    }

    fn end_unneeded_uploads(&mut self) {
        let Some(current) = &mut self.current else {
            return;
        };
        for upload in current.take_unneeded() {
            self.commands.push_back(Command::EndUpload { upload });
        }
    }

    /// How the job ended, once it has.
    pub fn outcome(&self) -> Option<&Outcome> {
        match &self.phase {
            Phase::Ended(outcome) => Some(outcome),
            _ => None,
        }
    }

    fn take(&mut self, event: Event, now: Timestamp) {
        match event {
            Event::Tick => {}
            Event::WorkerJoined {
                worker,
                slots,
                replaces,
            } => self.worker_joined(worker, slots, replaces, now),
            Event::DataResized { worker, examples } => self.data_resized(worker, examples),
            Event::WorkerLost { worker } => self.worker_lost(worker),
            Event::Prepared(prepared) => self.prepared(prepared, now),
            Event::Dealt { round, examples } => self.dealt(round, examples, now),
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
            } => self.report_offered(request, worker, client, round, &metadata),
            Event::ReportStored {
                request,
                upload,
                client,
                round,
                stored,
            } => self.report_stored(request, upload, client, round, stored),
            Event::TaskFailed {
                request,
                worker,
                client,
                round,
                reason,
            } => self.task_failed(request, worker, client, round, reason),
            Event::ShareEvaluated {
                request,
                worker,
                client,
                version,
                evaluation,
            } => self.share_evaluated(request, worker, client, version, evaluation),
            Event::Aggregated { round, aggregation } => self.aggregated(round, aggregation, now),
            Event::Published { version, published } => self.published(version, published, now),
            Event::Evaluated {
                version,
                evaluation,
            } => self.evaluated(version, evaluation),
            Event::Cancelled { request } => self.cancelled(request),
        }
    }

    fn check_deadlines(&mut self, now: Timestamp) {
        match self.phase {
            Phase::Waiting { deadline } if now >= deadline => {
                self.fail_waiting(self.config.limits.start_timeout);
            }
            Phase::Gathering { deadline } if now >= deadline => {
                self.fail_waiting(self.config.limits.round_timeout);
            }
            Phase::Collecting => self.check_collection(now),
            _ => {}
        }
        self.check_evaluations(now);
    }

    // Ends.

    fn cancelled(&mut self, request: RequestId) {
        match self.outcome() {
            // Asked again: it is what was wanted.
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

    fn fail_waiting(&mut self, seconds: u64) {
        let detail = self.status().detail;
        self.fail(format!("after {seconds} s still {detail}"));
    }

    fn fail(&mut self, reason: String) {
        self.end(Outcome::Failed { reason });
    }

    fn end(&mut self, outcome: Outcome) {
        self.skip_evaluations();
        self.log(JobEvent::Ended(outcome.clone()));
        self.commands.push_back(Command::End(outcome.clone()));
        self.phase = Phase::Ended(outcome);
    }

    // What every part needs.

    /// The clients that some live worker can act for.
    fn available(&self) -> impl Iterator<Item = (ClientId, ClientSpec)> + '_ {
        self.numbered()
            .filter(|(client, _)| self.leases.holder(*client).is_some())
    }

    /// All clients of the job, in order, each with its basis.
    pub fn population(&self) -> Vec<ClientInfo> {
        let mut population = Vec::with_capacity(self.clients.len());
        for (id, spec) in self.numbered() {
            let mut client = ClientInfo::new(id, spec.examples);
            client.basis = self.basis.get(&id).copied();
            population.push(client);
        }
        population
    }

    fn numbered(&self) -> impl Iterator<Item = (ClientId, ClientSpec)> + '_ {
        (0..).map(ClientId).zip(self.clients.iter().copied())
    }

    fn client(&self, client: ClientId) -> Result<ClientSpec, Refusal> {
        let spec = self.clients.get(client.0 as usize).copied();
        spec.ok_or_else(|| {
            let detail = format!("the job has no client {client}");
            Refusal::new(RefusalKind::UnknownClient, detail)
        })
    }

    fn respond(&mut self, request: RequestId, response: Response) {
        self.commands
            .push_back(Command::Respond { request, response });
    }

    /// Adds to the event log, whose last entry is the end.
    fn log(&mut self, event: JobEvent) {
        if self.outcome().is_none() {
            self.commands.push_back(Command::Log(event));
        }
    }

    fn log_waiting(&mut self) {
        let reason = self.status().detail;
        self.log(JobEvent::Waiting { reason });
    }

    fn wake(&mut self, workers: impl IntoIterator<Item = WorkerId>) {
        for worker in workers {
            self.commands.push_back(Command::Wake { worker });
        }
    }
}
