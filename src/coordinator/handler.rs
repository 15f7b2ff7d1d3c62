//! Answers workers: which request goes to which answer, and what only looks something up.

use std::sync::atomic::Ordering;

use futures_util::future::BoxFuture;

use super::handle::Coordinator;
use crate::{
    ids::{ClientId, JobId, ModelVersion},
    protocol::{FROZEN, JobMessage, LoggedEvent},
    report::{PartialKey, Refusal, RefusalKind},
    round::{Event, RoundMachine},
    store::WindowedLog,
    text::printable,
    transport::{Credentials, Handler, ModelBody, Peer, Request, Requester, Response},
};

impl Handler for Coordinator {
    fn handle(&self, peer: Peer, request: Request) -> BoxFuture<'_, Response> {
        Box::pin(self.answer(peer, request))
    }

    fn check_requester<'a>(
        &'a self,
        peer: Peer,
        requester: &'a Requester,
    ) -> BoxFuture<'a, Result<(), Refusal>> {
        let checked = match requester {
            Requester::NewWorker { join_token } => self.check_registrant(peer, join_token.as_ref()),
            // Not noted as a sign of life: this only saves the reading of a body, and `answer` checks again.
            Requester::Worker(credentials) => self.state().authenticate(credentials).map(drop),
        };
        Box::pin(std::future::ready(checked))
    }
}

/// Whether the request may add to the journal. Heartbeats and a worker that leaves are left out: to refuse them would only lead to
/// more records.
fn adds_to_the_journal(request: &Request) -> bool {
    matches!(
        request,
        Request::Register { .. }
            | Request::Poll { .. }
            | Request::Report { .. }
            | Request::TaskFailed { .. }
            | Request::Evaluation { .. }
    )
}

impl Coordinator {
    /// The logs of events that a request may add to: of the job that it names, or of those that run.
    fn logs_of(&self, request: &Request) -> Vec<WindowedLog<LoggedEvent>> {
        let named = match request {
            Request::Report { job, .. }
            | Request::UploadOffset { job, .. }
            | Request::TaskFailed { job, .. }
            | Request::Evaluation { job, .. } => Some(*job),
            _ => None,
        };
        let state = self.state();
        // A request that names no job can add to the log, too: a poll takes a task, and leases move when workers come
        // or go.
        let mut logs = Vec::new();
        for id in named.map_or(state.turns.order(), |named| vec![named]) {
            if let Some(job) = state.jobs.get(&id) {
                logs.push(job.history.events().clone());
            }
        }
        logs
    }

    async fn answer(&self, peer: Peer, request: Request) -> Response {
        // Workers can't add to a log faster than it is written to its file.
        for log in self.logs_of(&request) {
            log.room().await;
        }
        if adds_to_the_journal(&request)
            && let Err(refusal) = self.check_backlog()
        {
            return Response::Refused(refusal);
        }
        // An idle poll tells nothing, and a task waits by itself for what it rests on.
        let is_poll = matches!(request, Request::Poll { .. });
        let answer = match request {
            Request::Register {
                join_token,
                registration,
            } => self.register(peer, join_token, registration),
            Request::Heartbeat { credentials, busy } => self.heartbeat(&credentials, busy),
            Request::Leave { credentials } => self.leave(&credentials),
            Request::Rotate { credentials } => self.rotate(peer, &credentials),
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
            Request::UploadOffset {
                credentials,
                job,
                round,
                client,
                digest,
            } => {
                let partial = PartialKey {
                    job,
                    round,
                    client,
                    worker: credentials.worker,
                    digest,
                };
                self.upload_offset(&credentials, partial).await
            }
            Request::TaskFailed {
                credentials,
                job,
                round,
                client,
                reason,
            } => {
                let worker = credentials.worker;
                // Workers choose this text. It goes to logs and terminals: cut, and without control characters.
                let reason = printable(&reason, self.0.config.workers.max_reason).into_owned();
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
                split,
                client,
                evaluation,
            } => {
                let worker = credentials.worker;
                let evaluation = evaluation.map_err(|reason| {
                    printable(&reason, self.0.config.workers.max_reason).into_owned()
                });
                self.tell(&credentials, job, |request| Event::ShareEvaluated {
                    request,
                    worker,
                    client,
                    version,
                    split,
                    evaluation,
                })
            }
        };
        let settled = if is_poll {
            Ok(())
        } else {
            self.settled().await
        };
        match settled.and(answer) {
            Ok(response) => response,
            Err(refusal) => Response::Refused(refusal),
        }
    }

    fn describe(&self, credentials: &Credentials, job: JobId) -> Result<Response, Refusal> {
        let state = self.state();
        state.working(credentials, self.now())?;
        let found = state.job(job)?;
        Ok(Response::Job(JobMessage {
            job,
            spec: found.spec.description(),
            frozen: found.has_frozen(),
            states_of: Some(found.states_of()).filter(|of| *of != job),
        }))
    }

    fn partition(
        &self,
        credentials: &Credentials,
        job: JobId,
        client: ClientId,
    ) -> Result<Response, Refusal> {
        let state = self.state();
        state.working(credentials, self.now())?;
        let job = state.job(job)?;
        let partition = job.partition_of(client)?;
        let lease = job
            .machine
            .as_ref()
            .and_then(|machine| RoundMachine::lease(machine, client));
        // A worker that has lost the lease meanwhile learns it here, before it trains for nothing.
        if lease != Some(credentials.worker) {
            let detail = format!(
                "worker {} does not hold the lease of client {client}",
                credentials.worker
            );
            return Err(Refusal::new(RefusalKind::NotLeased, detail));
        }
        Ok(Response::Partition(partition))
    }

    fn serve_model(
        &self,
        credentials: &Credentials,
        job: JobId,
        version: ModelVersion,
        payload: Option<&str>,
    ) -> Result<Response, Refusal> {
        let state = self.state();
        let protocol = state.working(credentials, self.now())?.protocol;
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
        // Counted whole when it is handed out: how much of it is sent (a range, a part that breaks off), only the
        // transport knows.
        job.bytes.fetch_add(body.length(), Ordering::Relaxed);
        Ok(Response::Model(ModelBody::Stored(body)))
    }
}
