//! Answers workers.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{sync::Notify, time::Instant};

use super::{
    Coordinator,
    admission::check_registration,
    speed::Speeds,
    state::{State, WorkerInfo},
    upload::Upload,
};
use crate::{
    ids::{ClientId, JobId, ModelVersion, RoundId, Timestamp},
    protocol::{
        DatasetInfo, FROZEN, JobMessage, Registered, Registration, TaskMessage, TaskWork, Token,
    },
    report::{Refusal, RefusalKind, ReportMetadata, SpoolKey},
    round::{self, Event, RoundMachine, Task, TaskKind},
    text::printable,
    transport::{Caller, Credentials, Handler, ModelBody, Peer, ReportBody, Request, Response},
};

/// The most characters of a reason that a worker gives.
const LONGEST_REASON: usize = 1000;

impl Handler for Coordinator {
    fn handle(&self, peer: Peer, request: Request) -> BoxFuture<'_, Response> {
        Box::pin(self.answer(peer, request))
    }
}

impl Coordinator {
    async fn answer(&self, peer: Peer, request: Request) -> Response {
        let answer = match request {
            Request::Register {
                join_token,
                registration,
            } => self.register(peer, join_token, registration),
            Request::Heartbeat { credentials, busy } => self.heartbeat(&credentials, busy),
            Request::Leave { credentials } => self.leave(&credentials),
            Request::Poll {
                credentials,
                busy,
                wait,
            } => self.poll(&credentials, &busy, wait).await,
            Request::Job { credentials, job } => self.describe(&credentials, job),
            Request::Partition {
                credentials,
                job,
                client,
            } => self.partition(&credentials, job, client),
            Request::Model {
                credentials,
                job,
                version,
                payload,
            } => self.serve_model(&credentials, job, version, payload.as_deref()),
            Request::Report {
                credentials,
                job,
                round,
                client,
                metadata,
                body,
            } => {
                self.report(&credentials, job, round, client, metadata, body)
                    .await
            }
            Request::TaskFailed {
                credentials,
                job,
                round,
                client,
                reason,
            } => {
                let worker = credentials.worker;
                let reason = printable(&reason, LONGEST_REASON).into_owned();
                self.tell(&credentials, job, |request| Event::TaskFailed {
                    request,
                    worker,
                    client,
                    round,
                    reason,
                })
            }
            Request::Evaluation {
                credentials,
                job,
                version,
                client,
                evaluation,
            } => {
                let worker = credentials.worker;
                let evaluation =
                    evaluation.map_err(|reason| printable(&reason, LONGEST_REASON).into_owned());
                let event = |request| Event::ShareEvaluated {
                    request,
                    worker,
                    client,
                    version,
                    evaluation,
                };
                self.tell(&credentials, job, event)
            }
        };
        answer.unwrap_or_else(Response::Refused)
    }

    fn register(
        &self,
        peer: Peer,
        join_token: Option<Token>,
        registration: Registration,
    ) -> Result<Response, Refusal> {
        self.admit(&Caller::new(peer, join_token))?;
        let protocol = check_registration(&registration)?;
        let token = draw_token()?;
        let now = self.now();
        let mut state = self.state();
        if state.roster.live_count() >= self.0.config.max_workers {
            let detail = format!(
                "{} workers are registered already",
                self.0.config.max_workers
            );
            return Err(Refusal::new(RefusalKind::Busy, detail));
        }
        self.check_datasets(&state, &registration)?;
        tracing::info!(
            name = registration.name,
            ?peer,
            device = registration.device,
            "worker registered"
        );
        let info = WorkerInfo {
            registration: Arc::new(registration),
            protocol,
            token: token.clone(),
            wake: Arc::new(Notify::new()),
            speeds: Speeds::default(),
        };
        let (worker, replaces) = state.register(info, now);
        self.worker_joined(&mut state, worker, replaces);
        self.rearm(&mut state);
        Ok(Response::Registered(Registered {
            worker,
            protocol,
            token,
            heartbeat_ms: self.0.config.heartbeat.as_millis() as u64,
            poll_ms: self.longest_poll().as_millis() as u64,
        }))
    }

    /// A worker whose copy of a dataset is not the coordinator's, or not that of the workers before it, is refused:
    /// the same indices would mean other examples.
    fn check_datasets(&self, state: &State, registration: &Registration) -> Result<(), Refusal> {
        if registration.local {
            return Ok(());
        }
        let known = self.0.datasets.iter().map(|dataset| {
            let (name, fingerprint) = (dataset.name.as_str(), dataset.fingerprint.as_str());
            ("the coordinator's", name, fingerprint)
        });
        let others = registration.datasets.iter().filter_map(|dataset| {
            let other = state.copies.other_than(dataset)?;
            Some(("the other workers'", dataset.name.as_str(), other))
        });
        let known = known.chain(others);
        // A job's copy can be one that the coordinator opened for it alone.
        let open = state.jobs.values().filter(|job| job.ended.is_none());
        let open = open.filter(|job| !job.fingerprint.is_empty());
        let open = open.map(|job| {
            let (name, fingerprint) = (job.spec.dataset.as_str(), job.fingerprint.as_str());
            ("the job's", name, fingerprint)
        });
        for (whose, name, fingerprint) in known.chain(open) {
            let differs =
                |dataset: &&DatasetInfo| dataset.name == name && dataset.fingerprint != fingerprint;
            if let Some(found) = registration.datasets.iter().find(differs) {
                let detail = format!(
                    "dataset {:?} has fingerprint {:?}, and {whose} copy has {fingerprint:?}",
                    found.name, found.fingerprint
                );
                return Err(Refusal::new(RefusalKind::DatasetMismatch, detail));
            }
        }
        Ok(())
    }

    /// Checks the credentials and notes that the worker was heard of.
    fn heard_of(&self, state: &mut State, credentials: &Credentials) -> Result<(), Refusal> {
        state.authenticate(credentials)?;
        if state.heard_of(credentials.worker, self.now()) {
            tracing::info!(worker = %credentials.worker, "worker is back");
            self.worker_joined(state, credentials.worker, None);
        }
        Ok(())
    }

    fn heartbeat(
        &self,
        credentials: &Credentials,
        busy: Vec<TaskMessage>,
    ) -> Result<Response, Refusal> {
        let mut state = self.state();
        self.heard_of(&mut state, credentials)?;
        let running = state
            .running
            .and_then(|job| Some((job, state.jobs.get(&job)?.machine.as_ref()?)));
        let is_wanted = |message: &TaskMessage| {
            running.is_some_and(|(job, machine)| {
                message.job == job && machine.wants(credentials.worker, &task_of(message))
            })
        };
        let unwanted = busy
            .into_iter()
            .filter(|message| !is_wanted(message))
            .collect();
        Ok(Response::Alive { unwanted })
    }

    fn leave(&self, credentials: &Credentials) -> Result<Response, Refusal> {
        let mut state = self.state();
        state.authenticate(credentials)?;
        if state.leave(credentials.worker) {
            tracing::info!(worker = %credentials.worker, "worker left");
            self.worker_lost(&mut state, credentials.worker);
        }
        Ok(Response::Accepted)
    }

    async fn poll(
        &self,
        credentials: &Credentials,
        busy: &[TaskMessage],
        wait: Duration,
    ) -> Result<Response, Refusal> {
        let wait = bunched(self.now(), wait.min(self.longest_poll()));
        let deadline = Instant::now() + wait;
        loop {
            let wake = {
                let mut state = self.state();
                self.heard_of(&mut state, credentials)?;
                if let Some(task) = self.next_task(&mut state, credentials, busy) {
                    return Ok(Response::Task(task));
                }
                state.authenticate(credentials)?.wake.clone()
            };
            // A wake-up between the look and the wait is not lost: it leaves a permit.
            if tokio::time::timeout_at(deadline, wake.notified())
                .await
                .is_err()
            {
                return Ok(Response::Idle);
            }
        }
    }

    /// The longest that a poll waits: a worker that does nothing but poll is heard of in time, even if one goes astray.
    fn longest_poll(&self) -> Duration {
        let config = &self.0.config;
        config.poll_wait.min(config.worker_expiry / 3)
    }

    fn next_task(
        &self,
        state: &mut State,
        credentials: &Credentials,
        busy: &[TaskMessage],
    ) -> Option<TaskMessage> {
        let job = state.running?;
        let request = state.next_request();
        let busy = busy
            .iter()
            .filter(|message| message.job == job)
            .map(task_of)
            .collect();
        let event = Event::TaskRequested {
            request,
            worker: credentials.worker,
            busy,
        };
        match self.drive(state, job, event) {
            Some(round::Response::Task(task)) => {
                let generation = state.job(job).map_or(0, |job| job.generation);
                Some(self.message_of(job, generation, task))
            }
            _ => None,
        }
    }

    fn message_of(&self, job: JobId, generation: u64, task: Task) -> TaskMessage {
        let work = match task.kind {
            TaskKind::Train {
                training,
                deadline,
                basis,
                sends,
                expects,
            } => TaskWork::Train {
                training,
                remaining_ms: deadline.since(self.now()).as_millis() as u64,
                generation,
                basis,
                sends,
                expects,
            },
            TaskKind::Evaluate { share, shares } => TaskWork::Evaluate { share, shares },
        };
        TaskMessage {
            job,
            round: task.round,
            client: task.client,
            version: task.version,
            work,
        }
    }

    fn describe(&self, credentials: &Credentials, job: JobId) -> Result<Response, Refusal> {
        let state = self.state();
        state.authenticate(credentials)?;
        let found = state.job(job)?;
        Ok(Response::Job(JobMessage {
            job,
            spec: found.spec.description(),
            frozen: found.has_frozen(),
        }))
    }

    fn partition(
        &self,
        credentials: &Credentials,
        job: JobId,
        client: ClientId,
    ) -> Result<Response, Refusal> {
        let state = self.state();
        state.authenticate(credentials)?;
        let job = state.job(job)?;
        let share = job.share(client)?;
        let lease = job
            .machine
            .as_ref()
            .and_then(|machine| RoundMachine::lease(machine, client));
        if lease != Some(credentials.worker) {
            let detail = format!(
                "worker {} does not hold the lease of client {client}",
                credentials.worker
            );
            return Err(Refusal::new(RefusalKind::NotLeased, detail));
        }
        Ok(Response::Partition(share))
    }

    fn serve_model(
        &self,
        credentials: &Credentials,
        job: JobId,
        version: ModelVersion,
        payload: Option<&str>,
    ) -> Result<Response, Refusal> {
        let state = self.state();
        let protocol = state.authenticate(credentials)?.protocol;
        let job = state.job(job)?;
        let (_, model) = job.model(Some(version))?;
        let body = match payload {
            // Protocol 1 knows whole models alone.
            None if protocol < 2 => Some(model.file()),
            None => Some(model.body()),
            Some(FROZEN) => model.frozen(),
            Some(name) => model.payload(name),
        };
        let body = body.ok_or_else(|| {
            let detail = format!(
                "version {version} offers no payload {:?}",
                payload.unwrap_or_default()
            );
            Refusal::new(RefusalKind::NotFound, detail)
        })?;
        job.bytes.fetch_add(body.length(), Ordering::Relaxed);
        Ok(Response::Model(ModelBody::Stored(body)))
    }

    async fn report(
        &self,
        credentials: &Credentials,
        job: JobId,
        round: RoundId,
        client: ClientId,
        mut metadata: ReportMetadata,
        body: ReportBody,
    ) -> Result<Response, Refusal> {
        let upload = {
            let mut state = self.state();
            self.heard_of(&mut state, credentials)?;
            let spec = &state.job(job)?.spec;
            if spec.partition.is_local() {
                metadata.examples = metadata.examples.min(self.0.config.max_local_examples);
            }
            let request = state.next_request();
            let worker = credentials.worker;
            let event = Event::ReportOffered {
                request,
                worker,
                client,
                round,
                metadata: metadata.clone(),
            };
            match self.drive(&mut state, job, event) {
                Some(round::Response::Admitted) => {}
                Some(round::Response::Accepted) => return Ok(Response::Accepted),
                answer => return Err(refusal_of(answer)),
            }
            let key = SpoolKey {
                job,
                round,
                client,
                upload: request,
            };
            let job = state.job_mut(job)?;
            let end = Arc::new(Notify::new());
            job.uploads.insert(request, end.clone());
            Upload::new(self.clone(), key, job.report_form.clone(), end)
        };
        upload.take(metadata, body).await
    }

    /// Sends an event about a job to its machine, and answers with what the machine says.
    fn tell(
        &self,
        credentials: &Credentials,
        job: JobId,
        event: impl FnOnce(crate::ids::RequestId) -> Event,
    ) -> Result<Response, Refusal> {
        let mut state = self.state();
        self.heard_of(&mut state, credentials)?;
        state.job(job)?;
        let request = state.next_request();
        match self.drive(&mut state, job, event(request)) {
            Some(round::Response::Accepted) => Ok(Response::Accepted),
            answer => Err(refusal_of(answer)),
        }
    }
}

/// The machine's "no".
pub(super) fn refusal_of(answer: Option<round::Response>) -> Refusal {
    match answer {
        Some(round::Response::Refused(refusal)) => refusal,
        _ => Refusal::new(RefusalKind::Conflict, "the job has not started"),
    }
}

fn task_of(message: &TaskMessage) -> Task {
    let kind = match &message.work {
        TaskWork::Train { training, .. } => TaskKind::Train {
            training: training.clone(),
            deadline: Default::default(),
            basis: None,
            sends: Vec::new(),
            expects: Vec::new(),
        },
        TaskWork::Evaluate { share, shares } => TaskKind::Evaluate {
            share: *share,
            shares: *shares,
        },
    };
    Task {
        client: message.client,
        round: message.round,
        version: message.version,
        kind,
    }
}

/// How long a poll waits that may wait so long: up to 1/256 less, so that the polls of many workers end in bunches.
/// To wake a thread for each of them alone is most of what an idle worker costs.
fn bunched(now: Timestamp, wait: Duration) -> Duration {
    let bunch = (wait / 256).as_millis() as u64;
    let early = (now + wait).0.checked_rem(bunch).unwrap_or(0);
    wait - Duration::from_millis(early)
}

fn draw_token() -> Result<Token, Refusal> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| {
        Refusal::new(
            RefusalKind::Busy,
            format!("no randomness for a token: {error}"),
        )
    })?;
    Ok(Token(
        bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_of_the_same_wait_end_in_bunches_and_never_late() {
        let wait = Duration::from_secs(30);
        let mut ends = std::collections::BTreeSet::new();
        for start in 1_000_000..1_010_000 {
            let start = Timestamp(start);
            let waited = bunched(start, wait);
            assert!(waited <= wait && wait - waited <= wait / 256, "{waited:?}");
            ends.insert(start + waited);
        }
        // Ten seconds in bunches of 117 ms.
        assert!(ends.len() <= 87, "{}", ends.len());
    }

    #[test]
    fn short_polls_wait_as_long_as_they_ask() {
        for wait in [0, 1, 100, 255] {
            let wait = Duration::from_millis(wait);
            assert_eq!(bunched(Timestamp(12_345), wait), wait);
        }
    }
}
