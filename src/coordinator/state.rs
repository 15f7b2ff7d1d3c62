//! What the coordinator knows: workers and jobs. Always behind its lock.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::sync::Notify;

use super::job::Job;
use crate::{
    ids::{JobId, RequestId, Timestamp, WorkerId},
    report::{Refusal, RefusalKind},
    round::{Roster, WorkerRecord, WorkerState},
    transport::{Credentials, Registration, Token},
};

pub(super) struct State {
    pub roster: Roster<WorkerInfo>,
    pub jobs: BTreeMap<JobId, Job>,
    pub queue: VecDeque<JobId>,
    pub running: Option<JobId>,
    /// The deadline that the time keeper waits for.
    pub armed: Option<Timestamp>,
    last_job: u64,
    last_request: u64,
}

/// What is kept of a worker.
pub(super) struct WorkerInfo {
    pub registration: Registration,
    pub token: Token,
    /// There may be a task for it.
    pub wake: Arc<Notify>,
}

impl State {
    pub fn new(expiry: Duration) -> Self {
        Self {
            roster: Roster::new(expiry),
            jobs: BTreeMap::new(),
            queue: VecDeque::new(),
            running: None,
            armed: None,
            last_job: 0,
            last_request: 0,
        }
    }

    pub fn next_job(&mut self) -> JobId {
        self.last_job += 1;
        JobId(self.last_job)
    }

    pub fn next_request(&mut self) -> RequestId {
        self.last_request += 1;
        RequestId(self.last_request)
    }

    pub fn job(&self, job: JobId) -> Result<&Job, Refusal> {
        self.jobs.get(&job).ok_or_else(|| unknown_job(job))
    }

    pub fn job_mut(&mut self, job: JobId) -> Result<&mut Job, Refusal> {
        self.jobs.get_mut(&job).ok_or_else(|| unknown_job(job))
    }

    /// Whether these credentials are a registered worker's.
    pub fn authenticate(&self, credentials: &Credentials) -> Result<&WorkerInfo, Refusal> {
        let unknown = || {
            Refusal::new(
                RefusalKind::Unauthorized,
                "this worker is not registered: register again",
            )
        };
        let holds =
            |record: &WorkerRecord<WorkerInfo>| record.info.token.matches(&credentials.token);
        let record = self.roster.find(credentials.worker).ok_or_else(unknown)?;
        if !holds(record) {
            // After a restart of the coordinator, an old worker's number can be another's: it then has to register.
            if !self.roster.iter().any(|(_, other)| holds(other)) {
                return Err(unknown());
            }
            let detail = format!("the token is another worker's than {}", credentials.worker);
            return Err(Refusal::new(RefusalKind::Forbidden, detail));
        }
        match record.state {
            WorkerState::Left => Err(unknown()),
            _ => Ok(&record.info),
        }
    }

    /// The live workers that can train this job, in order of registration.
    pub fn eligible<'a>(
        &'a self,
        job: &'a Job,
    ) -> impl Iterator<Item = (WorkerId, &'a Registration)> {
        self.roster
            .live()
            .map(|(worker, record)| (worker, &record.info.registration))
            .filter(|(_, registration)| job.can_be_trained_by(registration))
    }
}

fn unknown_job(job: JobId) -> Refusal {
    Refusal::new(RefusalKind::UnknownJob, format!("there is no job {job}"))
}
