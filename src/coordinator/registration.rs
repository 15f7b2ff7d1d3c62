//! Workers come: their registration, their data, their token.

use std::sync::Arc;

use tokio::sync::Notify;

use super::{
    access::draw_token,
    admission::check_registration,
    audit::Actor,
    facts::{COORDINATOR, CoordinatorFact, WORKER, json},
    handle::Coordinator,
    speed::Speeds,
    state::{State, WorkerInfo},
    worker_access::{JoinedWith, Standing, WorkerAccess},
};
use crate::{
    access::TokenHash,
    ids::{Timestamp, WorkerId},
    protocol::{AuditAction, DatasetInfo, Registered, Registration, Token},
    report::{Refusal, RefusalKind},
    round::{JobEvent, WorkerState},
    store::journal::{Batch, Fact, Stream},
    transport::{Peer, Response},
};

impl Coordinator {
    pub(super) fn register(
        &self,
        peer: Peer,
        join_token: Option<Token>,
        registration: Registration,
    ) -> Result<Response, Refusal> {
        // HTTP has asked `check_requester` before it read the body; other transports have not.
        self.check_registrant(peer, join_token.as_ref())?;
        let protocol = check_registration(&registration, &self.0.config.workers.registration)?;
        self.check_allowed(peer, &registration)?;
        // Before the lock is taken: the operating system may let us wait for randomness.
        let token = draw_token()?;
        let now = self.now();
        let mut state = self.state();
        // Under the lock of the registration: a token of one use lets in one worker.
        let joined = self.joined(&state, peer, join_token.as_ref(), Some(&registration))?;
        // Only live workers count. Of those that are gone, the roster keeps `WorkerLimits::keep`.
        if state.roster.live_count() >= self.0.config.workers.max {
            let detail = format!(
                "{} workers are registered already, and that is the most; the coordinator's --max-workers raises it",
                self.0.config.workers.max
            );
            // Each of those that wait tries again every few seconds: once is enough for the operator.
            if !state.told_full {
                state.told_full = true;
                tracing::warn!(name = registration.name, "a worker must wait: {detail}");
            }
            return Err(Refusal::new(RefusalKind::Busy, detail));
        }
        // All that can refuse comes before `retire`: a worker that is refused must not take the place of another one.
        self.check_datasets(&state, &registration)?;
        let replaces = state.namesake(&registration);
        let mut was_lost = false;
        if let Some(former) = replaces {
            check_name(&state, &registration, former, now)?;
            check_binding(&state, &registration, former, &joined.with)?;
            was_lost = self.retire(&mut state, former);
        }
        if let Some(twin) = joined.instead_of.filter(|twin| Some(*twin) != replaces) {
            self.retire(&mut state, twin);
        }
        tracing::info!(
            name = registration.name,
            ?peer,
            device = registration.device,
            "worker registered"
        );
        let (standing, action) = match replaces
            .or(joined.instead_of)
            .and_then(|former| quarantine_of(&state, former))
        {
            Some(quarantine) => (quarantine, AuditAction::WorkerQuarantined),
            None if self.0.config.access.approve => (Standing::Pending, AuditAction::WorkerPending),
            None => (Standing::Admitted, AuditAction::WorkerAdmitted),
        };
        let name = registration.name.clone();
        let info = WorkerInfo {
            registration: Arc::new(registration),
            protocol,
            token: TokenHash::of(&token),
            access: WorkerAccess {
                joined_by: joined.by.clone(),
                joined_with: joined.with.clone(),
                standing,
                ..WorkerAccess::default()
            },
            wake: Arc::new(Notify::new()),
            speeds: Speeds::default(),
            was_heard: false,
            replaces,
            busy: Vec::new(),
        };
        let worker = state.register(info, now);
        self.use_token(&mut state, &joined, join_token.as_ref());
        self.write_workers(&mut state, &[worker]);
        let mut actor = Actor::new(joined.by, peer);
        if let Some(token) = joined.token {
            actor = actor.with_token(token);
        }
        self.note_action(
            &mut state,
            &actor,
            action,
            format!("worker {worker} ({name})"),
        );
        state.told_full = false;
        // Before the leases move, so that the log tells the reason first. A worker that left in order was not lost:
        // nothing to tell.
        if let Some(former) = replaces.filter(|_| was_lost) {
            self.tell_of_return(&mut state, worker, former);
        }
        self.worker_joined(&mut state, worker);
        // The time keeper has to know when this worker expires. Without a running job nothing above has told it.
        self.rearm(&mut state);
        Ok(Response::Registered(Registered {
            worker,
            coordinator: self.0.identity.clone(),
            protocol,
            token,
            heartbeat_ms: self.0.config.workers.heartbeat.as_millis() as u64,
            poll_ms: self.longest_poll().as_millis() as u64,
        }))
    }

    /// Takes the right to come back from a worker whose name is another's now; whether it was lost: it has neither left, nor
    /// registered and sent nothing afterwards.
    fn retire(&self, state: &mut State, former: WorkerId) -> bool {
        let found = state.roster.find(former).map(|record| record.state);
        // From here on its token is refused: otherwise two processes of one name could act for one client.
        if state.leave(former) {
            self.worker_lost(state, former);
        }
        self.write_workers(state, &[former]);
        // One that is forgotten has been gone for long.
        found.is_none_or(|found| found == WorkerState::Lost)
    }

    /// Says that a worker takes the place of a lost one of its name.
    fn tell_of_return(&self, state: &mut State, worker: WorkerId, replaces: WorkerId) {
        let Some(record) = state.roster.find(worker) else {
            return;
        };
        let name = record.info.registration.name.clone();
        tracing::warn!(
            %worker,
            lost = %replaces,
            name,
            "a worker takes the place of a lost one of the same name, with its clients"
        );
        let now = self.now();
        for id in state.turns.order() {
            let Some(job) = state.jobs.get_mut(&id) else {
                continue;
            };
            if job.owners.contains(&name) {
                let event = JobEvent::WorkerReturned {
                    worker,
                    replaces,
                    name: name.clone(),
                };
                job.record(event, now);
                self.append_history(state, id);
            }
        }
    }

    /// Writes down how these workers are, and forgets those that are not remembered any more.
    pub(super) fn write_workers(&self, state: &mut State, workers: &[WorkerId]) {
        let forgotten = state.take_forgotten();
        if self.0.journal.is_none() {
            return;
        }
        let mut batch = Batch::default().fact(COORDINATOR, json(&self.coordinator_fact(state)));
        for worker in workers {
            if let Some(fact) = state.worker_fact(*worker) {
                batch = batch.fact(format!("{WORKER}{worker}"), json(&fact));
            }
        }
        for worker in forgotten {
            batch.facts.push(Fact {
                name: format!("{WORKER}{worker}"),
                body: None,
            });
        }
        self.append(state, Stream::Coordinator, batch);
    }

    pub(super) fn coordinator_fact(&self, state: &State) -> CoordinatorFact {
        CoordinatorFact {
            identity: self.0.identity.clone(),
            term: self.0.term,
            last_job: state.last_job,
            last_worker: state.roster.last(),
            last_token: state.tokens.last(),
        }
    }

    /// A worker whose copy of a dataset is not the coordinator's, or not that of the workers before it, is refused:
    /// the same indices would mean other examples.
    pub(super) fn check_datasets(
        &self,
        state: &State,
        registration: &Registration,
    ) -> Result<(), Refusal> {
        if registration.local {
            // No two workers have the same data of their own: there is nothing to compare.
            return Ok(());
        }
        for dataset in &registration.datasets {
            for known in &self.0.datasets {
                check_copy(
                    dataset,
                    &known.name,
                    &known.fingerprint,
                    "the coordinator's",
                )?;
            }
            if let Some(other) = state.copies.other_than(dataset) {
                check_copy(dataset, &dataset.name, other, "the other workers'")?;
            }
            // A job's copy can be one that the coordinator opened for it alone.
            for job in state.jobs.values() {
                if job.ended.is_none() && !job.fingerprint.is_empty() {
                    check_copy(dataset, &job.spec.dataset, &job.fingerprint, "the job's")?;
                }
            }
        }
        Ok(())
    }
}

/// Refuses the name of a live worker with data of its own: both would be the same client. One that has never shown its
/// token does not count, since the answer to its registration may have been lost, and the same worker registers again.
fn check_name(
    state: &State,
    registration: &Registration,
    namesake: WorkerId,
    now: Timestamp,
) -> Result<(), Refusal> {
    let Some(record) = state.roster.find(namesake) else {
        return Ok(());
    };
    if record.state != WorkerState::Live || !record.info.was_heard {
        return Ok(());
    }
    let detail = format!(
        "worker {namesake} has the name {:?} and is live: its last request came {} s ago. Choose another --name; if this is the same \
         worker, started again, wait until worker {namesake} is lost, after {} s of silence",
        registration.name,
        now.since(record.last_seen).as_secs(),
        state.roster.expiry().as_secs(),
    );
    Err(Refusal::new(RefusalKind::Conflict, detail))
}

/// The quarantine of a worker whose name another one takes, unless an operator has put it out: it must not end by a new registration.
fn quarantine_of(state: &State, former: WorkerId) -> Option<Standing> {
    let access = &state.roster.find(former)?.info.access;
    let is_held = matches!(access.standing, Standing::Quarantined { .. }) && !access.revoked;
    is_held.then(|| access.standing.clone())
}

/// Refuses the name of a worker with data of its own to who joins with something else than that worker did: its clients are
/// those of whoever has the name.
fn check_binding(
    state: &State,
    registration: &Registration,
    namesake: WorkerId,
    with: &JoinedWith,
) -> Result<(), Refusal> {
    let Some(record) = state.roster.find(namesake) else {
        return Ok(());
    };
    let access = &record.info.access;
    if access.revoked || access.joined_with == *with || access.joined_with == JoinedWith::Nothing {
        return Ok(());
    }
    let detail = format!(
        "the name {:?} belongs to worker {namesake}, which joined with {}: join with the same token or certificate, or ask an \
         operator to free the name (fedavg workers revoke {namesake})",
        registration.name,
        access.joined_with_words()
    );
    Err(Refusal::new(RefusalKind::Forbidden, detail))
}

/// Refuses a worker's dataset that has the name of a known one and is another copy.
fn check_copy(
    dataset: &DatasetInfo,
    name: &str,
    fingerprint: &str,
    whose: &str,
) -> Result<(), Refusal> {
    if dataset.name != name || dataset.fingerprint == fingerprint {
        return Ok(());
    }
    let detail = format!(
        "dataset {:?} has fingerprint {:?}, and {whose} copy has {fingerprint:?}",
        dataset.name, dataset.fingerprint
    );
    Err(Refusal::new(RefusalKind::DatasetMismatch, detail))
}
