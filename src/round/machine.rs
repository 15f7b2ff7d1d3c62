//! One job's control plane.
//!
//! ```text
//!  Waiting ──> Preparing ──> (begin a round) <─────────────────────────────────────┐
//!                             │                                                    │
//!                             ├─> Finishing    all rounds are committed            │
//!                             ├─> Paused       the operator wants it so ──────────>┤
//!                             ├─> CatchingUp   too many versions to evaluate ─────>┤
//!                             ├─> Gathering    too few clients have a worker ─────>┤
//!                             ├─> Dealing      only if the data may be dealt again │
//!                             │      │                                             │
//!                             └──────┴─> Planning                                  │
//!                                           │                                      │
//!                                        Collecting                                │
//!                                           │                                      │
//!                                        Aggregating                               │
//!                                           │                                      │
//!                                        Publishing ──> committed ─────────────────┤
//!                                                                                  │
//!      each of the last four, if it fails: abandoned, with the reason ─────────────┘
//!
//!  Finishing ──> Ended(Completed)   once all versions are evaluated
//!  Finishing ──> Ended(Stopped)     the same, if one of the job's own rules ended the rounds
//!  any phase ──> Ended(Failed)      a timeout of Waiting or Gathering, a failed Preparing, too many abandoned attempts
//!  any phase ──> Ended(Cancelled)
//! ```
//!
//! Dealing goes to Gathering instead of Planning if too many workers were lost meanwhile. A round *commits* if the
//! strategy folds at least the quorum; it stops collecting when its goal is met, when no report may still come, when the
//! quorum can't be reached any more, or at its deadline. Every phase that waits has a deadline or a command under way, but for
//! Paused, which waits for the operator.
//!
//! This file takes events in and hands commands out. What follows from an event is in the other files: [`workers`] (leases
//! and tasks), [`reports`] (verdicts), [`rounds`] (when a round begins), [`commits`] (how it ends), [`evaluations`],
//! [`ends`] (how the job ends), [`resume`] (how it goes on after the driver was away), and [`status`] (the same in words).

mod commits;
mod config;
mod due;
mod ends;
mod evaluations;
mod phase;
mod reports;
mod resume;
mod rounds;
mod status;
mod workers;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

#[cfg(test)]
pub(super) use commits::REMEMBERED_ROUNDS;
pub use config::{EvaluationBy, MachineConfig};
use due::Due;
use phase::Phase;
use serde::{Deserialize, Serialize};
pub use status::RoundStatus;

use super::{
    ClientSpec, Command, Event, JobEvent, Response, collection::Collection, leases::Leases,
    pending::Pending, progress::Progress,
};
use crate::{
    ids::{ClientId, ModelVersion, RequestId, RoundId, Timestamp, WorkerId},
    report::{Refusal, RefusalKind},
    settings::EvalSplit,
    strategy::ClientInfo,
};

/// One job's control plane. See the module's documentation for how to drive it.
///
/// It can be written down and read back (serde) once its commands are drained: what was written is what the next process goes on
/// from, after [`Event::Recovered`]. The form is this crate's own, and [`SEMANTICS`](super::SEMANTICS) its number.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
    to_evaluate: VecDeque<Due>,
    /// What is evaluated at the end beside what was due before.
    #[serde(default)]
    last_evaluations: Vec<(ModelVersion, EvalSplit)>,
    /// What the versions were measured to be so far.
    #[serde(default)]
    progress: Progress,
    /// The round that made the latest version; 0 before the first.
    #[serde(default)]
    last_committed: RoundId,
    /// When the rounds began; later by the time that the driver was away.
    #[serde(default)]
    started: Option<Timestamp>,
    /// Whether no further round is to begin.
    #[serde(default)]
    paused: bool,
    /// Empty between events.
    #[serde(skip)]
    commands: VecDeque<Command>,
    /// The live workers that can't train the job, in words. The driver says it again.
    #[serde(skip)]
    bystanders: String,
}

impl RoundMachine {
    /// A job that begins now. Next, [`RoundMachine::begin`] tells it of the workers that are there.
    pub fn new(config: MachineConfig, now: Timestamp) -> Self {
        let deadline = now + Duration::from_secs(config.limits.start_timeout);
        Self {
            // Planning counts up first, so that the first attempt has the number that was asked for.
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
            last_evaluations: Vec::new(),
            progress: Progress::default(),
            last_committed: RoundId(0),
            started: None,
            paused: false,
            commands: VecDeque::new(),
            bystanders: String::new(),
        }
    }

    /// The same, of a job that goes on from another one: the last round of that one that folded each client.
    pub fn with_basis(mut self, basis: BTreeMap<ClientId, RoundId>) -> Self {
        self.basis = basis;
        self
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
    /// of the reason why the job fails if it waits until its timeout. Empty if there are none.
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
            // The other phases wait for a command that is under way, whose end is an event, or for an evaluation
            // (below).
            _ => None,
        };
        let evaluation = self
            .evaluating
            .as_ref()
            .and_then(|pending| pending.deadline);
        // Evaluations have a deadline of their own, in whatever phase the rounds are.
        phase.into_iter().chain(evaluation).min()
    }

    /// Takes one event. What follows from it comes out of [`RoundMachine::poll_command`].
    pub fn handle(&mut self, event: Event, now: Timestamp) {
        // Whatever comes after a deadline is late, even if the driver's tick is late, too. Workers are the exception: a
        // round that begins at this deadline needs to know first who joined and who was lost.
        // Another exception is the driver's return, which moves the deadlines.
        let comes_first = matches!(
            event,
            Event::WorkerJoined { .. }
                | Event::WorkerLost { .. }
                | Event::Recovered { .. }
                | Event::WasAway { .. }
        );
        if !comes_first {
            self.check_deadlines(now);
        }
        self.take(event, now);
        // Once more: the event may have brought what the phase waits for, such as the last report of the goal.
        self.check_deadlines(now);
        // Last, and once for all events: a lease that moved, a client that failed and a round that closed all leave
        // uploads that are of no use. They hold places that other uploads wait for.
        self.end_unneeded_uploads();
    }

    fn end_unneeded_uploads(&mut self) {
        let Some(current) = &mut self.current else {
            return;
        };
        // Told at once, and not when they end: a sender of gigabytes that nobody needs keeps a place from the others.
        for upload in current.take_unneeded() {
            self.commands.push_back(Command::EndUpload { upload });
        }
    }

    fn take(&mut self, event: Event, now: Timestamp) {
        match event {
            // `handle` checks the deadlines around every event. A tick is only there to make that happen in time.
            Event::Tick => {}
            Event::Recovered {
                downtime_ms,
                abandon,
            } => self.recovered(downtime_ms, abandon, now),
            Event::WasAway { away_ms } => self.move_deadlines(Duration::from_millis(away_ms)),
            Event::Broken { reason } => self.broken(reason),
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
                split,
                evaluation,
            } => self.share_evaluated(request, worker, client, (version, split), evaluation),
            Event::Aggregated {
                round,
                aggregation,
                joules,
            } => self.aggregated(round, aggregation, joules, now),
            Event::Published { version, published } => self.published(version, published, now),
            Event::Evaluated {
                version,
                split,
                evaluation,
            } => self.evaluated(version, split, evaluation),
            Event::Paused { request, paused } => self.set_paused(request, paused, now),
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

    /// How many clients the job has; 0 before they are fixed.
    pub fn client_count(&self) -> usize {
        self.clients.len()
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
        // Readers of the log stop at its end: an entry after that would never be seen.
        if self.outcome().is_none() {
            self.commands.push_back(Command::Log(event));
        }
    }

    fn log_waiting(&mut self) {
        // The same words as in `status`, so that the log and the operator's view never disagree.
        let reason = self.status().detail;
        self.log(JobEvent::Waiting { reason });
    }

    fn wake(&mut self, workers: impl IntoIterator<Item = WorkerId>) {
        for worker in workers {
            self.commands.push_back(Command::Wake { worker });
        }
    }
}
