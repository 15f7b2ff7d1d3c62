//! The invariants. The checker knows only what went into the machine and what came out of it; it keeps its own books
//! and compares.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::Seen;
use crate::{
    ids::{ClientId, ModelVersion, RequestId, RoundId, Timestamp, WorkerId},
    report::{Refusal, RefusalKind, ReportMetadata},
    round::{
        ClientSpec, Command, EvaluationBy, Event, JobEvent, MachineConfig, Outcome, Response,
        RoundMachine, Task, TaskKind, machine::REMEMBERED_ROUNDS,
    },
    strategy::RoundPlan,
};

type Check = Result<(), String>;

macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+));
        }
    };
}

/// What was asked, until it is answered.
#[derive(Debug, Clone)]
pub enum Asked {
    Task { worker: WorkerId, busy: Vec<Task> },
    Offer(Offered),
    Stored { upload: RequestId, is_ok: bool },
    Other,
    Cancel,
}

/// A report as its worker would send it again.
#[derive(Debug, Clone)]
pub struct Offered {
    pub worker: WorkerId,
    pub client: ClientId,
    pub round: RoundId,
    pub metadata: ReportMetadata,
}

/// What makes two offers the same: worker, client, round, version, examples, and whether its metrics are numbers.
type Key = (WorkerId, ClientId, RoundId, ModelVersion, u64, bool);

impl Offered {
    fn has_numbers(&self) -> bool {
        self.metadata
            .metrics
            .values()
            .all(|value| value.is_finite())
    }

    fn key(&self) -> Key {
        let metadata = &self.metadata;
        let numbers = self.has_numbers();
        (
            self.worker,
            self.client,
            self.round,
            metadata.base_version,
            metadata.examples,
            numbers,
        )
    }
}

#[derive(Debug)]
struct Upload {
    offered: Offered,
    overtaken: bool,
}

#[derive(Debug)]
struct Round {
    version: ModelVersion,
    plan: RoundPlan,
    deadline: Timestamp,
    open: bool,
    /// Reports told accepted while it was open.
    told: BTreeMap<ClientId, (RequestId, WorkerId)>,
    failed: BTreeSet<ClientId>,
    uploading: BTreeMap<ClientId, RequestId>,
    folded: Option<Vec<(ClientId, RequestId)>>,
}

impl Round {
    /// Whether the client's task is for the asking.
    fn is_pending(&self, client: ClientId) -> bool {
        self.open
            && self.plan.cohort.contains(&client)
            && !self.told.contains_key(&client)
            && !self.failed.contains(&client)
            && !self.uploading.contains_key(&client)
    }
}

pub struct Checker {
    config: MachineConfig,
    now: Timestamp,
    pub seen: Seen,
    pub live: BTreeSet<WorkerId>,
    pub clients: Vec<ClientSpec>,
    holders: BTreeMap<ClientId, Option<WorkerId>>,
    asked: BTreeMap<RequestId, Asked>,
    uploads: BTreeMap<RequestId, Upload>,
    rounds: BTreeMap<RoundId, Round>,
    /// The rounds whose reports were discarded, in that order.
    discarded: Vec<RoundId>,
    verdicts: BTreeMap<Key, Response>,
    last_round: RoundId,
    planning: bool,
    plan: Option<(RoundId, RoundPlan)>,
    aggregated: Option<RoundId>,
    published: Option<ModelVersion>,
    version: ModelVersion,
    evaluating: BTreeSet<ModelVersion>,
    /// Abandoned attempts since the last commit.
    abandoned: u32,
    outcome: Option<Outcome>,
    is_over: bool,
}

impl Checker {
    pub fn new(config: MachineConfig) -> Self {
        Self {
            config,
            now: Timestamp(0),
            seen: Seen::default(),
            live: BTreeSet::new(),
            clients: Vec::new(),
            holders: BTreeMap::new(),
            asked: BTreeMap::new(),
            uploads: BTreeMap::new(),
            rounds: BTreeMap::new(),
            discarded: Vec::new(),
            verdicts: BTreeMap::new(),
            last_round: RoundId(0),
            planning: false,
            plan: None,
            aggregated: None,
            published: None,
            version: ModelVersion(0),
            evaluating: BTreeSet::new(),
            abandoned: 0,
            outcome: None,
            is_over: false,
        }
    }

    pub fn ask(&mut self, request: RequestId, asked: Asked) {
        self.asked.insert(request, asked);
    }

    /// Notes an event that is about to be handled.
    pub fn event(&mut self, event: &Event, now: Timestamp) {
        self.now = now;
        match event {
            Event::WorkerJoined { worker, .. } => {
                self.live.insert(*worker);
            }
            Event::WorkerLost { worker } => {
                self.live.remove(worker);
            }
            Event::Prepared(Ok(clients)) => self.clients.clone_from(clients),
            Event::Planned { round, plan } => {
                self.plan = plan.clone().ok().map(|plan| (*round, plan));
            }
            Event::Aggregated { round, aggregation } => {
                self.aggregated = aggregation.is_ok().then_some(*round);
            }
            Event::Published { version, published } => {
                self.published = published.is_ok().then_some(*version);
            }
            _ => {}
        }
    }

    /// Checks one command.
    pub fn command(&mut self, command: &Command) -> Check {
        if !matches!(command, Command::Respond { .. }) {
            ensure!(!self.is_over, "after the end comes {command:?}");
        }
        match command {
            Command::Prepare { workers } => {
                let known: Vec<_> = workers.iter().map(|(worker, _)| *worker).collect();
                let live: Vec<_> = self.live.iter().copied().collect();
                ensure!(known == live, "prepares for {known:?}, live are {live:?}");
                ensure!(
                    known.len() >= self.config.limits.min_workers as usize,
                    "too few workers"
                );
            }
            Command::Plan {
                round,
                version,
                clients,
            } => {
                ensure!(
                    *round == self.last_round.next(),
                    "round {round} after {}",
                    self.last_round
                );
                ensure!(*version == self.version, "plans from version {version}");
                ensure!(
                    self.version.0 < u64::from(self.config.rounds),
                    "a round too many"
                );
                ensure!(self.no_round_is_open(), "plans while a round is open");
                ensure!(
                    clients.is_sorted_by(|a, b| a.id < b.id),
                    "clients out of order"
                );
                ensure!(
                    clients.len() >= self.quorum(),
                    "too few clients for the quorum"
                );
                for client in clients {
                    ensure!(
                        self.holder(client.id).is_some(),
                        "offers an orphan to the strategy"
                    );
                }
                self.last_round = *round;
                self.planning = true;
                self.seen.retried |= self.abandoned > 0;
            }
            Command::Wake { worker } => {
                ensure!(self.live.contains(worker), "wakes {worker}, which is gone");
            }
            Command::Respond { request, response } => {
                let asked = self.asked.remove(request);
                let Some(asked) = asked else {
                    return Err(format!(
                        "request {request} is answered twice, or was never made"
                    ));
                };
                self.response(*request, asked, response)?;
            }
            Command::Aggregate {
                round,
                base,
                accepted,
            } => {
                self.aggregate(*round, *base, accepted)?;
            }
            Command::Publish { round, version } => {
                ensure!(
                    self.aggregated == Some(*round),
                    "publishes what was not aggregated"
                );
                ensure!(
                    *version == self.version.next(),
                    "version {version} after {}",
                    self.version
                );
                self.aggregated = None;
            }
            Command::Evaluate { version } => {
                ensure!(
                    self.config.evaluation == EvaluationBy::Driver,
                    "not the driver's work"
                );
                ensure!(
                    self.evaluating.contains(version),
                    "evaluates {version} out of turn"
                );
            }
            Command::Discard { round } => {
                let Some(ended) = self.rounds.get_mut(round) else {
                    return Err(format!("discards round {round}, which never began"));
                };
                ended.open = false;
                ensure!(
                    !self.discarded.contains(round),
                    "discards round {round} twice"
                );
                self.discarded.push(*round);
            }
            Command::Log(event) => self.log(event)?,
            Command::End(outcome) => {
                ensure!(
                    self.outcome.as_ref() == Some(outcome),
                    "the end was not logged"
                );
                self.is_over = true;
                self.seen.cancelled |= *outcome == Outcome::Cancelled;
                self.seen.completed |= *outcome == Outcome::Completed;
                self.seen.failed |= matches!(outcome, Outcome::Failed { .. });
            }
        }
        Ok(())
    }

    fn aggregate(
        &mut self,
        round: RoundId,
        base: ModelVersion,
        accepted: &[(ClientId, RequestId)],
    ) -> Check {
        let now = self.now;
        let Some(folded) = self.rounds.get_mut(&round).filter(|round| round.open) else {
            return Err(format!("folds round {round}, which is not open"));
        };
        folded.open = false;
        ensure!(base == folded.version, "folds into another version");
        ensure!(
            accepted.is_sorted_by(|a, b| a.0 < b.0),
            "a client counts twice or out of order"
        );
        for (client, _) in accepted {
            ensure!(
                folded.plan.cohort.contains(client),
                "folds {client} from outside the cohort"
            );
        }
        let told: Vec<_> = folded
            .told
            .iter()
            .map(|(client, (upload, _))| (*client, *upload))
            .collect();
        ensure!(
            told == accepted,
            "folds {accepted:?}, and told {told:?} that they are accepted"
        );
        ensure!(
            accepted.len() >= folded.plan.quorum,
            "commits with {} reports, below the quorum of {}",
            accepted.len(),
            folded.plan.quorum
        );
        let all_answered = folded.told.len() + folded.failed.len() == folded.plan.cohort.len();
        let is_due = accepted.len() >= folded.plan.goal || now >= folded.deadline;
        ensure!(is_due || all_answered, "round {round} closed for no reason");
        folded.folded = Some(accepted.to_vec());
        Ok(())
    }

    fn log(&mut self, event: &JobEvent) -> Check {
        match event {
            JobEvent::Waiting { .. }
            | JobEvent::Started { .. }
            | JobEvent::ReportRefused { .. } => {}
            JobEvent::Leased { client, from, to } => self.leased(*client, *from, *to)?,
            JobEvent::RoundStarted {
                round,
                version,
                cohort,
                goal,
                quorum,
            } => {
                let planned = self.plan.take().filter(|(planned, _)| planned == round);
                let Some((_, plan)) = planned.filter(|_| self.planning) else {
                    return Err(format!("round {round} starts without a plan"));
                };
                ensure!(
                    *round == self.last_round,
                    "round {round} is not the planned one"
                );
                ensure!(*version == self.version, "starts from version {version}");
                ensure!(
                    (cohort, goal, quorum) == (&plan.cohort, &plan.goal, &plan.quorum),
                    "not as planned"
                );
                let known = cohort
                    .iter()
                    .all(|client| (client.0 as usize) < self.clients.len());
                ensure!(
                    known && cohort.is_sorted_by(|a, b| a < b),
                    "a cohort of {cohort:?}"
                );
                ensure!(
                    *quorum >= self.quorum() && quorum <= goal && *goal <= cohort.len(),
                    "an invalid plan"
                );
                self.planning = false;
                let deadline = self.now + Duration::from_secs(self.config.limits.round_timeout);
                let began = Round {
                    version: *version,
                    plan,
                    deadline,
                    open: true,
                    told: BTreeMap::new(),
                    failed: BTreeSet::new(),
                    uploading: BTreeMap::new(),
                    folded: None,
                };
                self.rounds.insert(*round, began);
            }
            JobEvent::TaskIssued { client, worker, .. } => {
                ensure!(
                    self.holder(*client) == Some(*worker),
                    "issues {client} to a stranger"
                );
            }
            JobEvent::ReportAccepted { round, client, .. } => {
                let told = self
                    .rounds
                    .get(round)
                    .is_none_or(|round| round.told.contains_key(client));
                ensure!(!told, "the report of {client} counts twice");
            }
            JobEvent::ClientFailed { round, client, .. } => {
                let Some(open) = self.rounds.get_mut(round).filter(|round| round.open) else {
                    return Err(format!(
                        "{client} fails in round {round}, which is not open"
                    ));
                };
                ensure!(
                    !open.told.contains_key(client),
                    "{client} fails after its report was accepted"
                );
                ensure!(open.failed.insert(*client), "{client} fails twice");
                open.uploading.remove(client);
            }
            JobEvent::RoundCommitted {
                round,
                version,
                clients,
                ..
            } => {
                ensure!(
                    self.published.take() == Some(*version),
                    "commits what is not published"
                );
                ensure!(
                    *version == self.version.next(),
                    "version {version} after {}",
                    self.version
                );
                ensure!(
                    self.discarded.last() == Some(round),
                    "the reports were not discarded"
                );
                let folded = self
                    .rounds
                    .get(round)
                    .and_then(|round| round.folded.as_ref());
                let folded = folded
                    .map(|folded| folded.iter().map(|(client, _)| *client).collect::<Vec<_>>());
                ensure!(
                    folded.as_ref() == Some(clients),
                    "records {clients:?}, folded {folded:?}"
                );
                self.version = *version;
                self.abandoned = 0;
                self.seen.committed = true;
                if self.config.evaluation != EvaluationBy::Nobody {
                    self.evaluating.insert(*version);
                }
            }
            JobEvent::RoundAbandoned { round, reason } => {
                ensure!(!reason.is_empty(), "abandoned without a reason");
                ensure!(
                    *round == self.last_round,
                    "abandons round {round} out of turn"
                );
                let is_closed = self.rounds.get(round).is_none_or(|round| !round.open);
                ensure!(is_closed, "abandoned but not discarded");
                self.planning = false;
                self.abandoned += 1;
                self.seen.abandoned = true;
                ensure!(
                    self.abandoned <= self.config.limits.max_attempts,
                    "an attempt too many"
                );
            }
            JobEvent::Evaluated {
                version,
                evaluation,
                reason,
            } => {
                ensure!(
                    self.evaluating.remove(version),
                    "version {version} is evaluated twice"
                );
                ensure!(
                    evaluation.is_some() != reason.is_some(),
                    "neither measured nor a reason"
                );
            }
            JobEvent::Ended(outcome) => {
                ensure!(self.outcome.is_none(), "ends twice");
                if *outcome == Outcome::Completed {
                    ensure!(
                        self.version.0 == u64::from(self.config.rounds),
                        "completed too early"
                    );
                    ensure!(
                        self.evaluating.is_empty(),
                        "completed before the last evaluation"
                    );
                }
                ensure!(self.no_round_is_open(), "ends with a round open");
                let kept = self
                    .rounds
                    .keys()
                    .find(|round| !self.discarded.contains(round));
                ensure!(
                    kept.is_none(),
                    "the reports of round {kept:?} are never discarded"
                );
                self.outcome = Some(outcome.clone());
            }
        }
        Ok(())
    }

    fn leased(&mut self, client: ClientId, from: Option<WorkerId>, to: Option<WorkerId>) -> Check {
        ensure!(
            self.holder(client) == from,
            "{client} was not held by {from:?}"
        );
        ensure!(from != to, "a move that is none");
        ensure!(
            to.is_none_or(|to| self.live.contains(&to)),
            "leased to {to:?}, which is gone"
        );
        if let Some((id, round)) = self.rounds.last_key_value().filter(|(_, round)| round.open) {
            let forced = from.is_none_or(|from| !self.live.contains(&from));
            ensure!(forced, "{client} moves without need in round {id}");
            self.seen.moved |=
                from.is_some() && to.is_some() && round.plan.cohort.contains(&client);
        }
        self.holders.insert(client, to);
        for upload in self
            .uploads
            .values_mut()
            .filter(|upload| upload.offered.client == client)
        {
            upload.overtaken = true;
        }
        for round in self.rounds.values_mut().filter(|round| round.open) {
            round.uploading.remove(&client);
        }
        Ok(())
    }

    fn response(&mut self, request: RequestId, asked: Asked, response: &Response) -> Check {
        if let Response::Refused(refusal) = response {
            self.seen.refused.insert(refusal.kind.code());
            ensure!(!refusal.detail.is_empty(), "refused without a reason");
        }
        match asked {
            Asked::Task { worker, busy } => self.task(worker, &busy, response),
            Asked::Offer(offered) => {
                self.verdict(&offered, response)?;
                self.offer(request, offered, response)
            }
            Asked::Stored { upload, is_ok } => self.stored(upload, is_ok, response),
            Asked::Other => Ok(()),
            Asked::Cancel => {
                let wanted = matches!(self.outcome, None | Some(Outcome::Cancelled));
                ensure!(
                    (*response == Response::Accepted) == wanted,
                    "a cancel got {response:?}"
                );
                Ok(())
            }
        }
    }

    fn task(&mut self, worker: WorkerId, busy: &[Task], response: &Response) -> Check {
        let is_free = |task: &Task| !busy.iter().any(|other| other.is_same_work(task));
        match response {
            Response::Task(task) => {
                ensure!(is_free(task), "a task that the worker has: {task:?}");
                ensure!(
                    self.holder(task.client) == Some(worker),
                    "a task for a stranger's client"
                );
                match task.kind {
                    TaskKind::Train { deadline, .. } => {
                        let round = self.rounds.get(&task.round);
                        let is_right = round.is_some_and(|round| {
                            round.is_pending(task.client)
                                && round.deadline == deadline
                                && round.version == task.version
                        });
                        ensure!(
                            is_right && self.now < deadline,
                            "a task for nothing: {task:?}"
                        );
                    }
                    TaskKind::Evaluate { share, shares } => {
                        ensure!(share < shares, "share {share} of {shares}");
                        ensure!(
                            self.evaluating.contains(&task.version),
                            "nobody wants it evaluated"
                        );
                    }
                }
            }
            Response::Idle => {
                for (id, round) in self.rounds.iter().filter(|(_, round)| round.open) {
                    let of_worker = |client: &&ClientId| {
                        self.holder(**client) == Some(worker) && round.is_pending(**client)
                    };
                    let is_busy = |client: &ClientId| {
                        busy.iter().any(|task| {
                            matches!(task.kind, TaskKind::Train { .. })
                                && (task.client, task.round) == (*client, *id)
                        })
                    };
                    let forgotten = round
                        .plan
                        .cohort
                        .iter()
                        .filter(of_worker)
                        .find(|client| !is_busy(client));
                    ensure!(
                        forgotten.is_none(),
                        "idle, and {forgotten:?} waits for {worker}"
                    );
                }
            }
            _ => return Err(format!("a poll got {response:?}")),
        }
        Ok(())
    }

    /// Every report gets one verdict, and its duplicate the same.
    fn verdict(&mut self, offered: &Offered, response: &Response) -> Check {
        let is_final = match response {
            Response::Accepted => true,
            Response::Refused(Refusal { kind, .. }) => {
                let of_the_moment =
                    matches!(kind, RefusalKind::NotLeased | RefusalKind::WrongRound);
                !of_the_moment && !kind.is_transient()
            }
            _ => false,
        };
        let position = self
            .discarded
            .iter()
            .rev()
            .position(|round| *round == offered.round);
        let is_remembered = position.is_none_or(|position| position < REMEMBERED_ROUNDS);
        match self.verdicts.get(&offered.key()) {
            Some(before) if is_remembered => {
                self.seen.duplicates += 1;
                ensure!(
                    before == response,
                    "{offered:?} got {before:?}, and sent again {response:?}"
                );
            }
            _ if is_final => {
                self.verdicts.insert(offered.key(), response.clone());
            }
            _ => {}
        }
        Ok(())
    }

    fn offer(&mut self, request: RequestId, offered: Offered, response: &Response) -> Check {
        let Offered {
            worker,
            client,
            round,
            ref metadata,
        } = offered;
        let holds_lease = self.holder(client) == Some(worker);
        let partition = self
            .clients
            .get(client.0 as usize)
            .map_or(0, |spec| spec.examples);
        let is_proper = (1..=partition).contains(&metadata.examples) && offered.has_numbers();
        let now = self.now;
        let record = self.rounds.get_mut(&round);
        let is_valid = holds_lease
            && is_proper
            && record.as_ref().is_some_and(|round| {
                round.is_pending(client)
                    && now < round.deadline
                    && metadata.base_version == round.version
            });
        match response {
            Response::Admitted => {
                let Some(record) = record.filter(|round| round.open) else {
                    return Err(format!(
                        "a report is admitted after the close of round {round}"
                    ));
                };
                ensure!(
                    metadata.base_version == record.version,
                    "a report that starts from another version is admitted"
                );
                ensure!(is_valid, "admits {offered:?}");
                record.uploading.insert(client, request);
                self.uploads.insert(
                    request,
                    Upload {
                        offered,
                        overtaken: false,
                    },
                );
            }
            Response::Accepted => {
                let sender = record.and_then(|round| round.told.get(&client));
                ensure!(
                    sender.is_some_and(|(_, sender)| *sender == worker),
                    "accepts what it does not have"
                );
            }
            Response::Refused(_) => ensure!(!is_valid, "refuses {offered:?} with {response:?}"),
            _ => return Err(format!("an offer got {response:?}")),
        }
        Ok(())
    }

    fn stored(&mut self, upload: RequestId, is_ok: bool, response: &Response) -> Check {
        let Some(Upload { offered, overtaken }) = self.uploads.remove(&upload) else {
            ensure!(
                matches!(response, Response::Refused(_)),
                "accepts an upload that is none"
            );
            return Ok(());
        };
        self.verdict(&offered, response)?;
        let now = self.now;
        let Some(round) = self.rounds.get_mut(&offered.round) else {
            return Err("an upload for no round".to_string());
        };
        self.seen.late_upload |= !round.open;
        let client = offered.client;
        let is_current = !overtaken && round.uploading.get(&client) == Some(&upload);
        let is_valid = is_ok && is_current && round.open && now < round.deadline;
        if is_current {
            round.uploading.remove(&client);
        }
        let is_accepted = *response == Response::Accepted;
        match round.told.get(&client) {
            Some((_, sender)) => {
                ensure!(
                    is_accepted == (*sender == offered.worker),
                    "two reports of {client}"
                );
            }
            None => {
                ensure!(
                    round.open || !is_accepted,
                    "a report is accepted after the close of its round"
                );
                ensure!(
                    is_accepted == is_valid,
                    "an upload got {response:?}: {offered:?}"
                );
                if is_accepted {
                    round.told.insert(client, (upload, offered.worker));
                }
            }
        }
        Ok(())
    }

    /// Checks the machine at rest, after its commands were drained.
    pub fn at_rest(&self, machine: &RoundMachine) -> Check {
        ensure!(self.asked.is_empty(), "not answered: {:?}", self.asked);
        ensure!(
            machine.outcome() == self.outcome.as_ref(),
            "the outcome was not told"
        );
        ensure!(
            self.is_over == self.outcome.is_some(),
            "ended without an end"
        );
        let status = machine.status();
        ensure!(
            status.version == self.version,
            "at version {}, told {}",
            status.version,
            self.version
        );
        ensure!(!status.detail.is_empty(), "waits in silence");
        if self.is_over {
            ensure!(
                machine.poll_deadline().is_none(),
                "a deadline after the end"
            );
            return Ok(());
        }
        let exhausted = self.abandoned >= self.config.limits.max_attempts;
        ensure!(!exhausted, "goes on after {} attempts", self.abandoned);
        for (client, holder) in &self.holders {
            ensure!(
                machine.lease(*client) == *holder,
                "the lease of {client} was not told"
            );
        }
        for version in self.evaluating.iter().chain([&self.version]) {
            ensure!(machine.needs(*version), "version {version} is needed");
        }
        ensure!(
            (status.phase == "planning") == self.planning,
            "{} while planning",
            status.phase
        );
        let open = self.rounds.iter().find(|(_, round)| round.open);
        ensure!(
            (status.phase == "collecting") == open.is_some(),
            "{}: {open:?}",
            status.phase
        );
        if let Some((id, round)) = open {
            let told = round.told.len();
            ensure!(
                (status.accepted, status.goal) == (told, round.plan.goal),
                "{status:?}"
            );
            let outstanding = round.plan.cohort.len() - told - round.failed.len();
            let is_over = told >= round.plan.goal || outstanding == 0 || self.now >= round.deadline;
            ensure!(!is_over, "round {id} waits for nothing");
            ensure!(
                told + outstanding >= round.plan.quorum,
                "round {id} waits in vain"
            );
        }
        Ok(())
    }

    pub fn holder(&self, client: ClientId) -> Option<WorkerId> {
        self.holders.get(&client).copied().flatten()
    }

    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// How often the round may be tried from here.
    pub fn attempts_left(&self) -> u32 {
        self.config.limits.max_attempts - self.abandoned
    }

    fn quorum(&self) -> usize {
        self.config.limits.min_updates as usize
    }

    fn no_round_is_open(&self) -> bool {
        self.rounds.values().all(|round| !round.open)
    }
}
