//! What the coordinator knows: workers and jobs. Always behind its lock.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::sync::{Notify, watch};

use super::{
    dataset_copies::DatasetCopies,
    facts::WorkerFact,
    job::Job,
    name_index::NameIndex,
    speed::{Measured, Speeds},
    turns::Turns,
    worker_access::{JoinedWith, WorkerAccess},
};
use crate::{
    access::{TokenHash, Tokens},
    ids::{JobId, RequestId, Timestamp, WorkerId},
    protocol::{AuditEntry, Registration, Token, TokenSummary},
    report::{Refusal, RefusalKind},
    round::{Roster, WorkerRecord, WorkerState},
    store::WindowedLog,
    store::journal::{Pending, Position, Stream},
    transport::Credentials,
};

/// All that changes. What becomes of each field when the coordinator ends and the next one recovers it:
///
/// - *journaled*: `jobs` (see [`Job`]), `roster` (facts `worker/N`, but for the time of the last request), `tokens` (facts
///   `token/N`, but for those of the configuration), `audit`, `last_job` (fact `coordinator`);
/// - *derived*: `copies`, `names` and `by_token` from the roster, `queue` and `turns` from the jobs, `positions` from the journal,
///   `last_request` from the term;
/// - *discarded*: `submitting`, `revocations`, `woken`, `told_full`, `armed`, `awake`, `appended`; of a worker its `wake`, `busy`,
///   `was_heard` and `speeds`.
pub(super) struct State {
    /// Read it; what changes it goes through the methods below, which keep the indices in step.
    pub roster: Roster<WorkerInfo>,
    /// The copies of datasets that the live workers have.
    pub copies: DatasetCopies,
    names: NameIndex,
    /// The worker of each token that a worker shows: the tokens' hashes, so that a wrong token costs no look at all workers.
    by_token: HashMap<[u8; 32], WorkerId>,
    /// The tokens of operators, and for workers that join.
    pub tokens: Tokens,
    /// Told of each token of `tokens` that is revoked, so that streams end which were asked for with it.
    pub revocations: watch::Sender<()>,
    /// Who did what; none before the first action.
    pub audit: Option<WindowedLog<AuditEntry>>,
    pub jobs: BTreeMap<JobId, Job>,
    pub queue: VecDeque<JobId>,
    /// The keys of submissions whose job is being made.
    pub submitting: BTreeSet<String>,
    /// The jobs that run.
    pub turns: Turns,
    /// Polls to let go on, once the commands are carried out.
    pub woken: Vec<Arc<Notify>>,
    /// Whether the log has said that no more workers can register.
    pub told_full: bool,
    /// The deadline that the time keeper waits for.
    pub armed: Option<Timestamp>,
    /// When this process was seen to run last.
    pub awake: Option<Timestamp>,
    /// How many batches each stream of the journal has.
    pub positions: BTreeMap<Stream, Position>,
    /// What was appended to the journal last.
    pub appended: Pending,
    pub last_job: JobId,
    pub last_request: RequestId,
}

/// What is kept of a worker.
pub(super) struct WorkerInfo {
    pub registration: Arc<Registration>,
    /// The version of the protocol that it speaks.
    pub protocol: u32,
    /// Of its token.
    pub token: TokenHash,
    /// What let it in, and whether it may have tasks.
    pub access: WorkerAccess,
    /// There may be a task for it.
    pub wake: Arc<Notify>,
    /// How fast it trains, as its reports say.
    pub speeds: Speeds,
    /// Whether it has shown its token: only then is it known that the answer to its registration reached it.
    pub was_heard: bool,
    /// The one of the same name before it, if its data is its own: it has that one's clients.
    pub replaces: Option<WorkerId>,
    /// The job of each task that it has, as its last request says.
    pub busy: Vec<JobId>,
}

impl State {
    /// No workers and no jobs yet. Workers may be silent for `expiry`, and this many that are gone are remembered.
    pub fn new(expiry: Duration, remembered: usize, tokens: Tokens) -> Self {
        Self {
            roster: Roster::new(expiry).remembering(remembered),
            copies: DatasetCopies::default(),
            names: NameIndex::default(),
            by_token: HashMap::new(),
            tokens,
            revocations: watch::Sender::new(()),
            audit: None,
            jobs: BTreeMap::new(),
            queue: VecDeque::new(),
            submitting: BTreeSet::new(),
            turns: Turns::default(),
            woken: Vec::new(),
            told_full: false,
            armed: None,
            awake: None,
            positions: BTreeMap::new(),
            appended: Pending::done(),
            last_job: JobId(0),
            last_request: RequestId(0),
        }
    }

    /// Tells the evaluations and folds of all jobs to stop.
    pub fn stop_work(&self) {
        for job in self.jobs.values() {
            job.over.store(true, Ordering::Relaxed);
        }
    }

    pub fn next_job(&mut self) -> JobId {
        // Counted first: 0 is no job. Lists begin after it, and a client asks for it to test its token.
        self.last_job.0 += 1;
        self.last_job
    }

    pub fn next_request(&mut self) -> RequestId {
        self.last_request.0 += 1;
        self.last_request
    }

    pub fn job(&self, job: JobId) -> Result<&Job, Refusal> {
        self.jobs.get(&job).ok_or_else(|| unknown_job(job))
    }

    pub fn job_mut(&mut self, job: JobId) -> Result<&mut Job, Refusal> {
        self.jobs.get_mut(&job).ok_or_else(|| unknown_job(job))
    }

    // Workers come and go.

    /// A new worker.
    pub fn register(&mut self, info: WorkerInfo, now: Timestamp) -> WorkerId {
        let (registration, token) = (info.registration.clone(), info.token);
        let worker = self.roster.register(info, now);
        self.by_token.insert(token.bytes(), worker);
        self.copies.add(&registration);
        self.note_name(worker, &registration);
        worker
    }

    /// Puts a worker back as an earlier process knew it.
    pub fn restore_worker(&mut self, worker: WorkerId, record: WorkerRecord<WorkerInfo>) {
        let registration = record.info.registration.clone();
        if record.state == WorkerState::Live {
            self.copies.add(&registration);
        }
        let former = record.info.access.former_token;
        for token in [Some(record.info.token), former].into_iter().flatten() {
            self.by_token.insert(token.bytes(), worker);
        }
        self.roster.restore(worker, record);
        self.note_name(worker, &registration);
    }

    fn note_name(&mut self, worker: WorkerId, registration: &Registration) {
        if registration.local {
            // Names of running jobs alone are needed: a queued job has no owners yet, and an ended one needs no worker
            // back.
            let (turns, jobs) = (&self.turns, &self.jobs);
            self.names
                .set(&registration.name, worker, &self.roster, |name| {
                    let mut running = turns.jobs().filter_map(|job| jobs.get(&job));
                    running.any(|job| job.owners.contains(name))
                });
        }
    }

    /// The last worker that had this one's name, if its data is its own.
    pub fn namesake(&self, registration: &Registration) -> Option<WorkerId> {
        if registration.local {
            self.names.last(&registration.name)
        } else {
            None
        }
    }

    /// Notes that a worker sent a request; whether it had been lost, and is live again.
    pub fn heard_of(&mut self, worker: WorkerId, shown: &Token, now: Timestamp) -> bool {
        if let Some(info) = self.roster.info_mut(worker) {
            info.was_heard = true;
            // The new token has reached the worker: the one before it counts no more.
            if info.access.former_token.is_some() && TokenHash::of(shown) == info.token {
                let former = info.access.former_token.take();
                if let Some(former) = former {
                    self.by_token.remove(&former.bytes());
                }
            }
        }
        let is_back = self.roster.touch(worker, now) == Some(true);
        // Its copies were taken out when it was lost.
        if is_back && let Some(record) = self.roster.find(worker) {
            self.copies.add(&record.info.registration);
        }
        is_back
    }

    /// A worker leaves; whether it was live.
    pub fn leave(&mut self, worker: WorkerId) -> bool {
        let was_live = self.roster.leave(worker);
        if was_live {
            self.forget_copies(worker);
            self.end_polls(worker);
        }
        was_live
    }

    /// Has the polls of a worker answered that are held open: they find out that its token counts no more.
    fn end_polls(&self, worker: WorkerId) {
        if let Some(record) = self.roster.find(worker) {
            record.info.wake.notify_waiters();
            // For one that is about to wait.
            record.info.wake.notify_one();
        }
    }

    /// Marks the workers lost that have been silent for too long, and returns them in order of registration.
    pub fn expire(&mut self, now: Timestamp) -> Vec<WorkerId> {
        let lost = self.roster.expire(now);
        for worker in &lost {
            self.forget_copies(*worker);
            self.note_busy(*worker, Vec::new());
        }
        lost
    }

    /// Notes the job of each task that a worker has.
    pub fn note_busy(&mut self, worker: WorkerId, mut busy: Vec<JobId>) {
        let Some(info) = self.roster.info_mut(worker) else {
            return;
        };
        // It can't have more tasks than slots. One that says so must not take a job's turn from it.
        busy.truncate(info.registration.slots as usize);
        for job in std::mem::replace(&mut info.busy, busy) {
            self.turns.release(job);
        }
        for job in &info.busy {
            self.turns.occupy(*job);
        }
    }

    /// A task of this job goes to a worker.
    pub fn hand_out(&mut self, worker: WorkerId, job: JobId) {
        if let Some(info) = self.roster.info_mut(worker) {
            info.busy.push(job);
            self.turns.occupy(job);
        }
        self.turns.served(job);
    }

    /// The job of the queue that starts next: of the highest priority the one that came first.
    pub fn take_from_queue(&mut self) -> Option<JobId> {
        let mut next = None;
        let mut highest = 0;
        for (place, job) in self.queue.iter().enumerate() {
            let priority = self.jobs.get(job).map_or(0, |job| job.spec.priority);
            if next.is_none() || priority > highest {
                (next, highest) = (Some(place), priority);
            }
        }
        self.queue.remove(next?)
    }

    /// Takes what was measured of workers in a round into their speeds.
    pub fn note_speeds(
        &mut self,
        model: &str,
        dataset: &str,
        measured: impl IntoIterator<Item = (WorkerId, Measured)>,
    ) {
        for (worker, measured) in measured {
            if let Some(info) = self.roster.info_mut(worker) {
                info.speeds.note(model, dataset, measured);
            }
        }
    }

    fn forget_copies(&mut self, worker: WorkerId) {
        if let Some(record) = self.roster.find(worker) {
            self.copies.remove(&record.info.registration);
        }
    }

    /// What is written down of a worker.
    pub fn worker_fact(&self, worker: WorkerId) -> Option<WorkerFact> {
        let record = self.roster.find(worker)?;
        Some(WorkerFact {
            registration: record.info.registration.clone(),
            protocol: record.info.protocol,
            token: record.info.token,
            registered: record.registered,
            state: record.state,
            replaces: record.info.replaces,
            access: record.info.access.clone(),
        })
    }

    /// Whether these credentials are a registered worker's.
    pub fn authenticate(&self, credentials: &Credentials) -> Result<&WorkerInfo, Refusal> {
        // Once, and not for each worker that it is compared with.
        let token = TokenHash::of(&credentials.token);
        let Some(record) = self.roster.find(credentials.worker) else {
            return Err(self.no_worker(&credentials.token));
        };
        if record.info.token != token && record.info.access.former_token != Some(token) {
            // After a restart of the coordinator, an old worker's number can be another's: it then has to register.
            if !self.is_a_workers(token) {
                return Err(self.no_worker(&credentials.token));
            }
            let detail = format!("the token is another worker's than {}", credentials.worker);
            return Err(Refusal::new(RefusalKind::Forbidden, detail));
        }
        if record.info.access.revoked {
            return Err(Refusal::new(
                RefusalKind::Unauthorized,
                "this worker's token was revoked: register again",
            ));
        }
        match record.state {
            // Also one whose name another worker has taken. It has to register again; a lost worker need not, since it is
            // live again as soon as it sends a request.
            WorkerState::Left => Err(not_registered()),
            _ => Ok(&record.info),
        }
    }

    /// Why who shows this token is no worker.
    fn no_worker(&self, shown: &Token) -> Refusal {
        // Known, and for something else: to register would not help, and it is no guess.
        match self.tokens.find(shown) {
            Some(known) => {
                let TokenSummary { name, kind, .. } = &known.summary;
                let detail = format!(
                    "{name:?} is the name of a token of the kind {kind}: a worker shows its own token, which it got when it registered"
                );
                Refusal::new(RefusalKind::Forbidden, detail)
            }
            None => not_registered(),
        }
    }

    /// Whether these credentials are those of a worker that may have tasks now.
    pub fn working(
        &self,
        credentials: &Credentials,
        now: Timestamp,
    ) -> Result<&WorkerInfo, Refusal> {
        let info = self.authenticate(credentials)?;
        info.access.check(now)?;
        Ok(info)
    }

    /// Whether a worker that is remembered has this token.
    fn is_a_workers(&self, token: TokenHash) -> bool {
        let worker = self.by_token.get(&token.bytes());
        worker.is_some_and(|worker| self.roster.find(*worker).is_some())
    }

    /// Why a token that is none of operators, and for no worker that joins, is refused.
    pub fn unknown_token(&self, shown: &Token, expected: &str) -> Refusal {
        if self.is_a_workers(TokenHash::of(shown)) {
            let detail = format!("this token is a worker's own: {expected}");
            return Refusal::new(RefusalKind::Forbidden, detail);
        }
        let detail = format!("the token is not known here: {expected}");
        Refusal::new(RefusalKind::Unauthorized, detail)
    }

    /// The worker that comes back, if this registration is one: the last of this name that came with the same token and, if it
    /// showed one, the same certificate. It has left or is lost; or it was never heard of, and says the same again, since the
    /// answer was lost. Without a registration, any worker that came so and may come back.
    pub fn former_self(
        &self,
        by: &str,
        with: &JoinedWith,
        registration: Option<&Registration>,
    ) -> Option<WorkerId> {
        let mut found = None;
        for (worker, record) in self.roster.iter() {
            let WorkerInfo {
                registration: said,
                access,
                was_heard,
                ..
            } = &record.info;
            if access.joined_with != *with || access.joined_by != by {
                continue;
            }
            if registration.is_some_and(|registration| registration.name != said.name) {
                continue;
            }
            let says_the_same = registration.is_none_or(|registration| *registration == **said);
            let is_gone = record.state != WorkerState::Live;
            let may_come_back = is_gone || (!was_heard && says_the_same);
            if may_come_back && !access.revoked {
                found = Some(worker);
            } else if registration.is_some() {
                // It is there, and this is another one of its name; or an operator has put it out.
                found = None;
            }
        }
        found
    }

    /// A worker that showed this token gets another one.
    pub fn rotate(&mut self, worker: WorkerId, shown: TokenHash, token: TokenHash) {
        let Some(info) = self.roster.info_mut(worker) else {
            return;
        };
        for old in [Some(info.token), info.access.former_token]
            .into_iter()
            .flatten()
        {
            if old != shown {
                self.by_token.remove(&old.bytes());
            }
        }
        info.access.former_token = Some(shown);
        info.token = token;
        self.by_token.insert(token.bytes(), worker);
    }

    /// The workers that are not remembered any more, since this was last asked.
    pub fn take_forgotten(&mut self) -> Vec<WorkerId> {
        let forgotten = self.roster.take_forgotten();
        // Now and then: this looks at all of them.
        if self.by_token.len() > 64 + 3 * self.roster.len() {
            let roster = &self.roster;
            self.by_token
                .retain(|_, worker| roster.find(*worker).is_some());
        }
        forgotten
    }

    /// The number of training examples in the largest copy of a dataset that a live worker has.
    pub fn most_examples(&self, dataset: &str) -> Option<u64> {
        let mut most = None;
        for (_, record) in self.roster.live() {
            for found in &record.info.registration.datasets {
                if found.name == dataset {
                    most = most.max(Some(found.train_examples));
                }
            }
        }
        most
    }

    /// The live workers that can train this job, in order of registration.
    pub fn eligible<'a>(
        &'a self,
        job: &'a Job,
    ) -> impl Iterator<Item = (WorkerId, &'a Arc<Registration>)> {
        self.roster
            .live()
            .filter(|(_, record)| record.info.access.is_admitted())
            .map(|(worker, record)| (worker, &record.info.registration))
            .filter(|(_, registration)| job.can_be_trained_by(registration))
    }
}

fn not_registered() -> Refusal {
    Refusal::new(
        RefusalKind::Unauthorized,
        "this worker is not registered: register again",
    )
}

fn unknown_job(job: JobId) -> Refusal {
    Refusal::new(RefusalKind::UnknownJob, format!("no job {job}"))
}
