//! How a coordinator goes on where the one before ended.
//!
//! First all that was written down is read: workers, jobs, machines. Then what lies in the stores is compared with it: versions and
//! accepted reports are opened, all else is removed. Only then is any machine told that it goes on, which gives the commands again
//! that were under way.

mod job;

use std::{collections::BTreeMap, sync::atomic::Ordering};

use thiserror::Error;

use super::{
    audit::AUDIT,
    facts::{COORDINATOR, CoordinatorFact, TOKEN, WORKER, WorkerFact, parse},
    handle::Coordinator,
    speed::Speeds,
    state::{State, WorkerInfo},
};
use crate::{
    access::{KnownToken, hex},
    ids::{CoordinatorId, JobId, RequestId, Timestamp, WorkerId},
    panics,
    report::{PartialKey, SpoolKey},
    round::{Event, RoundMachine, WorkerRecord, WorkerState},
    store::{
        Journal,
        journal::{Batch, JournalError, Stream, WHAT_TO_DO, fact},
    },
    words::plural,
};

/// Why a coordinator can't go on where the one before ended.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecoveryError {
    /// The journal can't be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// What the journal has is not what a coordinator writes.
    #[error("the journal is damaged: {0}; {advice}", advice = WHAT_TO_DO)]
    Damaged(String),
}

/// What a coordinator begins with.
pub(super) struct Beginning {
    pub identity: CoordinatorId,
    /// How often it has started, this time included.
    pub term: u64,
    /// The last moment at which the one before is known to have been alive.
    pub time: Timestamp,
}

impl Default for Beginning {
    fn default() -> Self {
        let mut bytes = [0; 16];
        // If there is no randomness, the registration of the first worker fails with that reason.
        let _ = getrandom::fill(&mut bytes);
        Self {
            identity: CoordinatorId(hex(&bytes)),
            term: 0,
            time: Timestamp(0),
        }
    }
}

impl Beginning {
    pub fn read(journal: &dyn Journal) -> Result<Self, RecoveryError> {
        let mut begun = Self {
            term: 1,
            time: journal.noted_time().unwrap_or_default(),
            ..Self::default()
        };
        if let Some(kept) = read_coordinator(journal)? {
            begun.identity = kept.identity;
            begun.term = kept.term + 1;
        }
        Ok(begun)
    }
}

/// What the coordinator before wrote down of itself, if there was one.
fn read_coordinator(journal: &dyn Journal) -> Result<Option<CoordinatorFact>, RecoveryError> {
    let Some(bytes) = fact(journal, Stream::Coordinator, COORDINATOR)? else {
        return Ok(None);
    };
    let kept = parse(COORDINATOR, &bytes).map_err(RecoveryError::Damaged)?;
    Ok(Some(kept))
}

/// How a job was found.
enum Recovered {
    /// It goes on; with this many accepted reports that can't be read, and cost the open round.
    Whole { unreadable: usize },
    /// It goes on, but for its open round: the last records were written by another version of this program.
    Upgraded,
    /// It can't go on, for this reason.
    Broken(String),
}

impl Coordinator {
    /// Takes up what the journal has, and goes on.
    pub(super) fn recover(&self) -> Result<(), RecoveryError> {
        // Bytes on a disk can change so that they still can be read, and a machine that never was may panic.
        let recovered = panics::caught(|| self.take_up());
        recovered.unwrap_or_else(|panic| Err(RecoveryError::Damaged(format!("a panic: {panic}"))))
    }

    fn take_up(&self) -> Result<(), RecoveryError> {
        let Some(journal) = self.0.journal.clone() else {
            return Ok(());
        };
        let now = self.now();
        let downtime = journal
            .noted_time()
            .map_or_else(Default::default, |noted| now.since(noted));
        let mut state = self.state();
        for (stream, position) in journal.streams()? {
            state.positions.insert(stream, position);
        }
        self.recover_workers(&mut state, &*journal, now)?;
        for (name, bytes) in journal.facts(Stream::Coordinator, TOKEN)? {
            let known: KnownToken = parse(&name, &bytes).map_err(RecoveryError::Damaged)?;
            state.tokens.restore(known);
        }
        state.audit = Some(self.audit_after(journal.last_entry(Stream::Coordinator, AUDIT)?));
        let streams: Vec<_> = state.positions.keys().copied().collect();
        let mut lost = BTreeMap::new();
        let mut upgraded = Vec::new();
        let mut broken = Vec::new();
        for stream in streams {
            let Stream::Job(id) = stream else {
                continue;
            };
            match self.recover_job(&mut state, &*journal, id)? {
                Recovered::Whole { unreadable } => {
                    lost.insert(id, unreadable);
                }
                Recovered::Upgraded => upgraded.push(id),
                Recovered::Broken(reason) => broken.push((id, reason)),
            }
        }
        // Requests of an earlier process have numbers that begin with its term.
        state.last_request = RequestId(self.0.term << 32);
        self.remove_leftovers(&state);
        let batch = Batch::default().fact(
            COORDINATOR,
            super::facts::json(&self.coordinator_fact(&state)),
        );
        self.append(&mut state, Stream::Coordinator, batch);
        for id in state.turns.order() {
            // It ends below, and its reason names what is lost. If it went on, a plan without the model could be quicker, and fail
            // for a reason that says nothing.
            if broken.iter().any(|(other, _)| *other == id) {
                continue;
            }
            let abandon = upgraded.contains(&id).then(|| {
                "the coordinator was replaced by another version of it in the midst of the round"
                    .to_string()
            });
            let recovered = Event::Recovered {
                downtime_ms: downtime.as_millis() as u64,
                abandon,
            };
            self.drive(&mut state, id, recovered);
            self.reconcile(&mut state, id);
            // It takes the place of all records, those too that can't be replayed: what is recorded from here on must not
            // come after one of these.
            self.append_snapshot(&mut state, id);
            tell(&state, id, lost.get(&id).copied().unwrap_or_default());
        }
        // Once all jobs are there: the end of one lets another one start.
        for (id, reason) in broken {
            // Only a machine can end a job.
            let _ = self.give_machine(&mut state, id);
            self.drive(&mut state, id, Event::Broken { reason });
        }
        self.start_next(&mut state);
        Ok(())
    }

    fn recover_workers(
        &self,
        state: &mut State,
        journal: &dyn Journal,
        now: Timestamp,
    ) -> Result<(), RecoveryError> {
        if let Some(kept) = read_coordinator(journal)? {
            state.last_job = kept.last_job;
            state.roster.resume_after(kept.last_worker);
            state.tokens.resume_after(kept.last_token);
        }
        for (name, bytes) in journal.facts(Stream::Coordinator, WORKER)? {
            let kept: WorkerFact = parse(&name, &bytes).map_err(RecoveryError::Damaged)?;
            let number = name.strip_prefix(WORKER).and_then(|name| name.parse().ok());
            let worker: WorkerId =
                number.ok_or_else(|| RecoveryError::Damaged(format!("{name:?} is no worker")))?;
            // A live one counts as heard of now: it could not send anything while nobody listened.
            let last_seen = if kept.state == WorkerState::Live {
                now
            } else {
                kept.registered
            };
            let info = WorkerInfo {
                registration: kept.registration,
                protocol: kept.protocol,
                token: kept.token,
                access: kept.access,
                wake: Default::default(),
                speeds: Speeds::default(),
                // The answer to its registration may have been lost with the process.
                was_heard: false,
                replaces: kept.replaces,
                busy: Vec::new(),
            };
            let record = WorkerRecord {
                info,
                registered: kept.registered,
                last_seen,
                state: kept.state,
            };
            state.restore_worker(worker, record);
        }
        Ok(())
    }

    /// Removes what lies in the stores and belongs to no job, no version and no open round.
    fn remove_leftovers(&self, state: &State) {
        if let Err(error) = self.0.models.retain(&|job, version| {
            let job = state.jobs.get(&job);
            job.is_some_and(|job| job.models.contains_key(&version))
        }) {
            tracing::warn!(%error, "models that nobody needs stay behind");
        }
        let spool = &self.0.spool;
        let retained = spool.retain(&|key| is_accepted(state, key), &|partial| {
            is_awaited(state, partial)
        });
        if let Err(error) = retained {
            tracing::warn!(%error, "reports that nobody needs stay behind");
        }
    }

    /// Tells a machine of the workers that are there, and of those that are not: the two streams need not have been written at
    /// the same moment.
    fn reconcile(&self, state: &mut State, id: JobId) {
        let Some(job) = state.jobs.get(&id) else {
            return;
        };
        let known = job.machine.as_ref().map(RoundMachine::workers);
        let known = known.unwrap_or_default();
        let there: Vec<_> = state.eligible(job).map(|(worker, _)| worker).collect();
        for worker in &known {
            if !there.contains(worker) {
                let worker = *worker;
                self.drive(state, id, Event::WorkerLost { worker });
            }
        }
        for worker in there {
            if !known.contains(&worker) {
                self.offer(state, id, worker);
            }
        }
    }
}

/// Whether an open round has accepted the report of this key.
fn is_accepted(state: &State, key: SpoolKey) -> bool {
    let job = state.jobs.get(&key.job);
    let Some(machine) = job.and_then(|job| job.machine.as_ref()) else {
        return false;
    };
    let accepted = machine.accepted();
    let found = accepted.binary_search_by_key(&key.client, |(client, _, _)| *client);
    machine.round_under_way() == Some(key.round)
        && found.is_ok_and(|at| accepted[at].1 == key.upload)
}

/// Whether an open round waits for the rest of this part of a report.
fn is_awaited(state: &State, partial: PartialKey) -> bool {
    let job = state.jobs.get(&partial.job);
    let machine = job.and_then(|job| job.machine.as_ref());
    machine.is_some_and(|machine| machine.awaits_report(partial.round, partial.client))
}

/// Says in one line how a job goes on. This many of its accepted reports can't be read.
fn tell(state: &State, id: JobId, unreadable: usize) {
    let Some(job) = state.jobs.get(&id) else {
        return;
    };
    let Some(machine) = &job.machine else {
        return;
    };
    let status = machine.status();
    if job.over.load(Ordering::Relaxed) {
        return;
    }
    tracing::info!(
        job = %id,
        round = %status.round,
        version = %status.version,
        kept = kept(status.accepted, unreadable),
        "the job goes on: {}",
        status.detail
    );
}

/// "2 reports", of which some perhaps can't be read.
fn kept(accepted: usize, unreadable: usize) -> String {
    let readable = plural(accepted.saturating_sub(unreadable), "report");
    match unreadable {
        0 => readable,
        count => format!("{readable}, and {count} that can't be read"),
    }
}
