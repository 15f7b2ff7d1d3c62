//! What operators read page by page: jobs, workers, records of rounds, events.
//!
//! The coordinator's lock is held to find the entries of one page and never for a whole list. What is long (records, events) is
//! read from the job's history without the lock, perhaps from a file.

use std::{collections::VecDeque, io, ops::Bound, sync::Arc};

use futures_util::stream;
use tokio::sync::watch;

use super::{
    handle::Coordinator,
    job::{Job, Progress},
    offers::note_bystanders,
    speed::Speeds,
    state::{State, WorkerInfo},
    worker_access::WorkerAccess,
};
use crate::{
    ids::{JobId, RoundId, Timestamp, WorkerId},
    protocol::{JobSummary, LoggedEvent, Registration, RoundRecord, WorkerSummary},
    report::{Refusal, RefusalKind},
    round::{WorkerRecord, WorkerState},
    store::WindowedLog,
    transport::{Events, OperatorError, Page},
};

/// Events that are read at once.
const EVENTS: usize = 256;

impl Coordinator {
    /// How many entries a page has at most, if more are asked for.
    pub(super) fn page_size(&self, asked: usize) -> usize {
        // A page without an entry would name nothing to go on after.
        asked.min(self.0.config.jobs.max_page).max(1)
    }

    pub(super) fn list_jobs(&self, after: JobId, limit: usize) -> Page<JobSummary, JobId> {
        let limit = self.page_size(limit);
        let mut state = self.state();
        // Only running jobs can be waiting for workers. This looks at each worker, so not if the job is before the page.
        for running in state.turns.order() {
            if running > after {
                note_bystanders(&mut state, running);
            }
        }
        let mut rest = state
            .jobs
            .range((Bound::Excluded(after), Bound::Unbounded))
            .map(|(_, job)| job);
        let mut summaries = Vec::new();
        for job in rest.by_ref().take(limit) {
            summaries.push(Job::summary(job));
        }
        let last = summaries.last().map(|summary| summary.job);
        // Looks for one more, so that the last page does not lead to an empty one.
        let next = rest.next().and(last);
        Page::new(summaries, next)
    }

    pub(super) fn list_workers(
        &self,
        after: WorkerId,
        limit: usize,
    ) -> Page<WorkerSummary, WorkerId> {
        let (found, has_more) = self.find_workers(after, self.page_size(limit));
        // Registrations are copied without the lock: they can be long.
        let now = self.now();
        let mut summaries = Vec::new();
        for worker in found {
            summaries.push(worker.summary(now));
        }
        let last = summaries.last().map(|summary| summary.worker);
        Page::new(summaries, last.filter(|_| has_more))
    }

    /// At most this many workers after this one, and whether there are more.
    fn find_workers(&self, after: WorkerId, limit: usize) -> (Vec<FoundWorker>, bool) {
        let state = self.state();
        let running = running(&state);
        let mut rest = state.roster.after(after);
        let mut found = Vec::new();
        for (worker, record) in rest.by_ref().take(limit) {
            found.push(FoundWorker::among(&running, worker, record));
        }
        (found, rest.next().is_some())
    }

    pub(super) async fn list_rounds(
        &self,
        job: JobId,
        after: RoundId,
        limit: usize,
    ) -> Result<Page<RoundRecord, RoundId>, Refusal> {
        // The lock is held for this line alone: the page may come from a file.
        let records = self.state().job(job)?.history.records();
        let page = records.page(after, self.page_size(limit)).await;
        page.map_err(|error| unreadable("records", job, &error))
    }

    /// The events of a job after this one, and the coming ones.
    pub(super) fn follow(&self, job: JobId, after: u64) -> Result<Events, Refusal> {
        let state = self.state();
        let found = state.job(job)?;
        let follower = Follower {
            job,
            log: found.history.events().clone(),
            progress: found.progress.subscribe(),
            after,
            ready: VecDeque::new(),
            is_broken: false,
        };
        Ok(Box::pin(stream::unfold(follower, Follower::next)))
    }

    /// The whole log of a job, as it is now. It can be larger than memory; [`Operator::events`](crate::transport::Operator::events)
    /// hands out one entry at a time.
    ///
    /// # Errors
    ///
    /// [`RefusalKind::UnknownJob`], and [`RefusalKind::Storage`] if a part of it can't be read.
    pub async fn log(&self, job: JobId) -> Result<Vec<LoggedEvent>, Refusal> {
        let log = self.state().job(job)?.history.events().clone();
        let mut events: Vec<LoggedEvent> = Vec::new();
        loop {
            let after = events.last().map_or(0, |event| event.sequence);
            let page = log.page(after, EVENTS).await;
            let page = page.map_err(|error| unreadable("events", job, &error))?;
            for event in page.entries {
                events.push(Arc::unwrap_or_clone(event));
            }
            if page.is_last {
                return Ok(events);
            }
        }
    }
}

/// What is taken of a worker under the lock.
pub(super) struct FoundWorker {
    worker: WorkerId,
    registration: Arc<Registration>,
    state: WorkerState,
    registered: Timestamp,
    last_seen: Timestamp,
    clients: usize,
    examples_per_second: Option<f64>,
    access: WorkerAccess,
}

fn running(state: &State) -> Vec<&Job> {
    let jobs = state.turns.jobs();
    jobs.filter_map(|job| state.jobs.get(&job)).collect()
}

/// How many clients of these jobs a worker acts for.
fn clients_of(jobs: &[&Job], worker: WorkerId) -> usize {
    let machines = jobs.iter().filter_map(|job| job.machine.as_ref());
    machines.map(|machine| machine.clients_of(worker)).sum()
}

/// The speed of a worker on the first of these jobs that it was measured on, else on what it trained last.
fn measured_of(jobs: &[&Job], speeds: &Speeds) -> Option<f64> {
    let mut measured = jobs
        .iter()
        .filter_map(|job| speeds.of(&job.spec.model, &job.spec.dataset));
    measured.next().or_else(|| speeds.latest())
}

impl FoundWorker {
    /// A worker, with what it does for the jobs that run.
    pub fn of(state: &State, worker: WorkerId, record: &WorkerRecord<WorkerInfo>) -> Self {
        Self::among(&running(state), worker, record)
    }

    fn among(running: &[&Job], worker: WorkerId, record: &WorkerRecord<WorkerInfo>) -> Self {
        Self {
            worker,
            registration: record.info.registration.clone(),
            state: record.state,
            registered: record.registered,
            last_seen: record.last_seen,
            clients: clients_of(running, worker),
            examples_per_second: measured_of(running, &record.info.speeds),
            access: record.info.access.clone(),
        }
    }

    /// What is shown of it at this moment.
    pub fn summary(self, now: Timestamp) -> WorkerSummary {
        let (admission, held) = self.access.shown(now);
        WorkerSummary {
            worker: self.worker,
            registration: Arc::unwrap_or_clone(self.registration),
            state: self.state,
            registered: self.registered,
            last_seen: self.last_seen,
            clients: self.clients,
            examples_per_second: self.examples_per_second,
            admission,
            held,
            held_until: self.access.held_until(now),
            joined_by: self.access.joined_by,
            refused_reports: self.access.refused_reports,
        }
    }
}

/// Hands out a job's events as they come.
struct Follower {
    job: JobId,
    log: WindowedLog<LoggedEvent>,
    progress: watch::Receiver<Progress>,
    after: u64,
    ready: VecDeque<Arc<LoggedEvent>>,
    is_broken: bool,
}

impl Follower {
    async fn next(mut self) -> Option<(Result<LoggedEvent, OperatorError>, Self)> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.after = event.sequence;
                return Some((Ok(Arc::unwrap_or_clone(event)), self));
            }
            // A stream that went on after the error would have a gap.
            if self.is_broken {
                return None;
            }
            // Before the page is read: what is logged after this look makes `changed` return at once, so nothing is
            // missed.
            let seen = *self.progress.borrow_and_update();
            match self.log.page(self.after, EVENTS).await {
                Ok(page) => {
                    // What is not durable yet may never have happened.
                    let shown = page.entries.into_iter();
                    self.ready
                        .extend(shown.take_while(|event| event.sequence <= seen.sequence));
                }
                Err(error) => {
                    self.is_broken = true;
                    let refusal = unreadable("events", self.job, &error);
                    return Some((Err(refusal.into()), self));
                }
            }
            // The log gets nothing after the end. An error of `changed` means that the job was forgotten.
            if self.ready.is_empty() && (seen.ended || self.progress.changed().await.is_err()) {
                return None;
            }
        }
    }
}

fn unreadable(what: &str, job: JobId, error: &io::Error) -> Refusal {
    tracing::warn!(%job, %error, "the {what} of the job can't be read from their file");
    let detail = format!("the {what} of job {job} can't be read from their file: {error}");
    Refusal::new(RefusalKind::Storage, detail)
}
