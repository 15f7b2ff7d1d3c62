//! The invariants. The checker knows only what went into the machine and what came out of it; it keeps its own books
//! and compares.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use asked::Key;
pub use asked::{Asked, Offered};
use evaluations::Evaluations;

use super::Seen;
use crate::{
    ids::{ClientId, ModelVersion, RequestId, RoundId, Timestamp, WorkerId},
    report::{Refusal, RefusalKind},
    round::{
        ClientSpec, Command, EvaluationBy, Event, JobEvent, MachineConfig, Outcome, Response,
        RoundMachine, Task, TaskKind, machine::REMEMBERED_ROUNDS,
    },
    strategy::{Aggregation, RoundPlan},
};

type Check = Result<(), String>;

macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+));
        }
    };
}

mod answers;
mod asked;
mod evaluations;
mod log;

#[derive(Debug)]
struct Upload {
    offered: Offered,
    overtaken: bool,
    /// The driver was told to end it.
    unneeded: bool,
}

#[derive(Debug)]
struct Round {
    version: ModelVersion,
    plan: RoundPlan,
    deadline: Timestamp,
    /// The number of examples of each client while it was open.
    sizes: Vec<u64>,
    open: bool,
    /// Reports told accepted while it was open.
    told: BTreeMap<ClientId, (RequestId, WorkerId)>,
    failed: BTreeSet<ClientId>,
    uploading: BTreeMap<ClientId, RequestId>,
    /// The clients whose reports were handed to the strategy.
    accepted: Option<Vec<ClientId>>,
    /// What the strategy said of them, once it was published.
    aggregation: Option<Aggregation>,
}

impl Round {
    /// Whether the client's task is for the asking.
    fn is_pending(&self, client: ClientId) -> bool {
        self.open
            && self.plan.clients().any(|member| member == client)
            && !self.told.contains_key(&client)
            && !self.failed.contains(&client)
            && !self.uploading.contains_key(&client)
    }

    /// An aggregation that may be published names each accepted client once, and folds the quorum.
    fn check_aggregation(&self, said: &Aggregation) -> Check {
        let folded: BTreeSet<_> = said.folded.iter().copied().collect();
        let excluded: BTreeSet<_> = said.excluded.iter().map(|(client, _)| *client).collect();
        let accepted: BTreeSet<_> = self.accepted.iter().flatten().copied().collect();
        ensure!(
            folded.is_subset(&accepted),
            "publishes {folded:?} of {accepted:?} accepted"
        );
        ensure!(folded.is_disjoint(&excluded), "folds what it excludes");
        ensure!(
            folded.union(&excluded).eq(&accepted),
            "an accepted report is neither folded nor excluded, or one excluded that was not accepted"
        );
        ensure!(
            (folded.len(), excluded.len()) == (said.folded.len(), said.excluded.len()),
            "a client counts twice"
        );
        ensure!(said.folded.is_sorted(), "folds out of order");
        ensure!(
            folded.len() >= self.plan.quorum,
            "publishes {} folded reports, below the quorum of {}",
            folded.len(),
            self.plan.quorum
        );
        Ok(())
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
    /// The round before which it was asked whether the data is dealt again.
    dealing: Option<RoundId>,
    /// The round before which that was answered.
    settled: Option<RoundId>,
    /// New sizes that are still to be logged.
    dealt: Option<Vec<u64>>,
    plan: Option<(RoundId, RoundPlan)>,
    aggregated: Option<(RoundId, Aggregation)>,
    /// The last round whose commit folded each client.
    basis: BTreeMap<ClientId, RoundId>,
    published: Option<ModelVersion>,
    version: ModelVersion,
    evaluating: Evaluations,
    /// Abandoned attempts since the last commit.
    abandoned: u32,
    outcome: Option<Outcome>,
    is_over: bool,
    /// The worker of whom the event is.
    asker: Option<WorkerId>,
    /// Workers that were told that there is no task, and not woken since, with the tasks that they had.
    idle: BTreeMap<WorkerId, Vec<Task>>,
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
            dealing: None,
            settled: None,
            dealt: None,
            plan: None,
            aggregated: None,
            basis: BTreeMap::new(),
            published: None,
            version: ModelVersion(0),
            evaluating: Evaluations::default(),
            abandoned: 0,
            outcome: None,
            is_over: false,
            asker: None,
            idle: BTreeMap::new(),
        }
    }

    /// The driver's process ended in this phase, and the next one has the machine.
    pub fn restarted(&mut self, phase: &str, downtime_ms: u64) {
        self.seen.restarted += 1;
        self.uploads.clear();
        self.idle.clear();
        (self.plan, self.aggregated, self.published) = (None, None, None);
        for round in self.rounds.values_mut() {
            round.uploading.clear();
        }
        self.moved(downtime_ms);
        // The same command comes once more.
        match phase {
            "planning" => {
                self.settled = self.config.deals.then_some(self.last_round);
                self.last_round = RoundId(self.last_round.0 - 1);
                self.planning = false;
            }
            "aggregating" | "publishing" => {
                if let Some(round) = self.rounds.get_mut(&self.last_round) {
                    round.open = true;
                }
            }
            _ => {}
        }
    }

    /// Deadlines move: the driver was away.
    pub fn moved(&mut self, away_ms: u64) {
        for round in self.rounds.values_mut() {
            round.deadline = round.deadline + Duration::from_millis(away_ms);
        }
    }

    pub fn ask(&mut self, request: RequestId, asked: Asked) {
        self.asked.insert(request, asked);
    }

    /// Notes an event that is about to be handled.
    pub fn event(&mut self, event: &Event, now: Timestamp) {
        self.now = now;
        self.asker = match event {
            Event::ReportOffered { worker, .. } | Event::TaskFailed { worker, .. } => Some(*worker),
            _ => None,
        };
        match event {
            Event::WorkerJoined { worker, .. } => {
                self.live.insert(*worker);
            }
            Event::WorkerLost { worker } => {
                self.live.remove(worker);
                self.idle.remove(worker);
            }
            Event::Prepared(Ok(clients)) => self.clients.clone_from(clients),
            Event::Dealt { round, examples } if self.dealing == Some(*round) => {
                self.dealing = None;
                self.settled = Some(*round);
                let is_whole =
                    |sizes: &&Vec<u64>| sizes.len() == self.clients.len() && !sizes.contains(&0);
                if let Some(examples) = examples.as_ref().filter(is_whole) {
                    for (client, size) in self.clients.iter_mut().zip(examples) {
                        client.examples = *size;
                    }
                    self.dealt = Some(examples.clone());
                }
            }
            Event::Planned { round, plan } => {
                self.plan = plan.clone().ok().map(|plan| (*round, plan));
            }
            Event::Aggregated {
                round, aggregation, ..
            } => {
                self.aggregated = aggregation.clone().ok().map(|said| (*round, said));
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
            Command::Deal { round } => {
                ensure!(self.config.deals, "deals again unasked");
                ensure!(
                    *round == self.last_round.next() && !self.planning,
                    "deals before round {round} after {}",
                    self.last_round
                );
                ensure!(self.no_round_is_open(), "deals while a round is open");
                self.dealing = Some(*round);
            }
            Command::Plan {
                round,
                version,
                clients,
            } => {
                ensure!(
                    self.config.deals == (self.settled.take() == Some(*round)),
                    "plans round {round} without asking how the data is dealt"
                );
                ensure!(self.dealt.is_none(), "new sizes were not logged");
                for client in clients {
                    ensure!(
                        self.size(client.id) == client.examples,
                        "plans with other sizes than were dealt"
                    );
                    ensure!(
                        self.basis.get(&client.id) == client.basis.as_ref(),
                        "plans with basis {:?} of client {}",
                        client.basis,
                        client.id
                    );
                }
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
                self.idle.remove(worker);
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
                let said = self.aggregated.take().filter(|(of, _)| of == round);
                let (Some((_, said)), Some(ended)) = (said, self.rounds.get_mut(round)) else {
                    return Err("publishes what was not aggregated".to_string());
                };
                let is_right = ended.check_aggregation(&said);
                is_right
                    .map_err(|problem| format!("a wrong aggregation is published: {problem}"))?;
                ended.aggregation = Some(said);
                ensure!(
                    *version == self.version.next(),
                    "version {version} after {}",
                    self.version
                );
            }
            Command::Evaluate { version, split } => {
                ensure!(
                    self.config.evaluation == EvaluationBy::Driver,
                    "not the driver's work"
                );
                ensure!(
                    self.evaluating.is_next(*version, *split),
                    "evaluates {version} out of turn"
                );
            }
            Command::EndUpload { upload } => {
                let Some(known) = self.uploads.get_mut(upload) else {
                    return Err(format!("ends {upload}, which uploads nothing"));
                };
                ensure!(!known.unneeded, "ends {upload} twice");
                known.unneeded = true;
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
                folded.plan.clients().any(|member| member == *client),
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
        let all_answered = folded.told.len() + folded.failed.len() == folded.plan.members.len();
        let is_due = accepted.len() >= folded.plan.goal || now >= folded.deadline;
        ensure!(is_due || all_answered, "round {round} closed for no reason");
        folded.accepted = Some(accepted.iter().map(|(client, _)| *client).collect());
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
        for (worker, busy) in &self.idle {
            let forgotten = self.forgotten(*worker, busy);
            ensure!(
                forgotten.is_none(),
                "{worker} sleeps, and {forgotten:?} waits for it"
            );
        }
        let exhausted = self.abandoned >= self.config.limits.max_attempts;
        ensure!(!exhausted, "goes on after {} attempts", self.abandoned);
        for (client, holder) in &self.holders {
            ensure!(
                machine.lease(*client) == *holder,
                "the lease of {client} was not told"
            );
        }
        for version in self.evaluating.open().chain([self.version]) {
            ensure!(machine.needs(version), "version {version} is needed");
        }
        if let Some(best) = machine.best() {
            let best = best.measured.version;
            ensure!(machine.needs(best), "the best version, {best}, is needed");
        }
        ensure!(
            (status.phase == "planning") == self.planning,
            "{} while planning",
            status.phase
        );
        for (request, upload) in &self.uploads {
            let round = self.rounds.get(&upload.offered.round);
            let is_over = upload.overtaken || round.is_none_or(|round| !round.open);
            ensure!(
                upload.unneeded || !is_over,
                "the upload {request} goes on for nothing"
            );
        }
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
            let outstanding = round.plan.members.len() - told - round.failed.len();
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

    /// The number of examples of a client at this moment.
    fn size(&self, client: ClientId) -> u64 {
        let spec = self.clients.get(client.0 as usize);
        spec.map_or(0, |spec| spec.examples)
    }

    fn quorum(&self) -> usize {
        self.config.limits.min_updates as usize
    }

    /// The quorum of a round that was planned.
    pub fn quorum_of(&self, round: RoundId) -> usize {
        self.rounds.get(&round).map_or(0, |round| round.plan.quorum)
    }

    fn no_round_is_open(&self) -> bool {
        self.rounds.values().all(|round| !round.open)
    }
}
