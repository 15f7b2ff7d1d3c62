//! One task from its beginning to its end: what it needs is fetched, the client trains, and the report goes out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{
    EvalTask, TrainError, TrainTask, WorkerError,
    open_job::OpenJobs,
    payload,
    runner::{Session, persist, unexpected},
};
use crate::{
    parameters::Payloads,
    protocol::{TaskMessage, TaskWork},
    report::{Refusal, ReportMetadata},
    round::Evaluation,
    transport::{ReportBody, Request, Response, Transport},
};

/// Why a task came to nothing.
pub(super) enum Failure {
    /// The coordinator says no: there is nothing more to do.
    Refused(Refusal),
    /// This worker can't do it: the coordinator is told.
    Unable(String),
    /// Nobody wants it any more.
    Dropped,
}

impl From<TrainError> for Failure {
    fn from(error: TrainError) -> Self {
        match error {
            TrainError::Cancelled => Self::Dropped,
            other => Self::Unable(other.to_string()),
        }
    }
}

impl From<WorkerError> for Failure {
    fn from(error: WorkerError) -> Self {
        match error {
            WorkerError::Refused(refusal) => Self::Refused(refusal),
            other => Self::Unable(other.to_string()),
        }
    }
}

impl OpenJobs {
    /// Does a task. What the coordinator refuses comes back, for the session to look at.
    pub async fn perform<T: Transport>(
        &self,
        session: &Session<T>,
        message: &TaskMessage,
        stop: &Arc<AtomicBool>,
    ) -> Result<(), Refusal> {
        let failure = match self.attempt(session, message, stop).await {
            Ok(()) | Err(Failure::Dropped) => return Ok(()),
            Err(Failure::Refused(refusal)) => return Err(refusal),
            Err(Failure::Unable(reason)) => reason,
        };
        tracing::warn!(job = %message.job, round = %message.round, client = %message.client, failure, "task failed");
        let request = || {
            let (credentials, reason) = (session.credentials(), failure.clone());
            let TaskMessage {
                job,
                round,
                client,
                version,
                ..
            } = *message;
            match message.work {
                TaskWork::Train { .. } => Request::TaskFailed {
                    credentials,
                    job,
                    round,
                    client,
                    reason,
                },
                TaskWork::Evaluate { .. } => Request::Evaluation {
                    credentials,
                    job,
                    version,
                    client,
                    evaluation: Err(reason),
                },
            }
        };
        match persist(&*session.transport, &session.config, request).await {
            Ok(Response::Refused(refusal)) => Err(refusal),
            _ => Ok(()),
        }
    }

    async fn attempt<T: Transport>(
        &self,
        session: &Session<T>,
        message: &TaskMessage,
        stop: &Arc<AtomicBool>,
    ) -> Result<(), Failure> {
        let job = self.open(session, message.job).await?;
        let model = job.model(session, message.version).await?;
        match &message.work {
            TaskWork::Train {
                training,
                remaining_ms,
                generation,
                basis,
                sends,
                expects,
            } => {
                let deadline = Instant::now() + Duration::from_millis(*remaining_ms);
                let partition = job.partition(session, message.client, *generation).await?;
                let layout = model.layout().clone();
                let mut task = TrainTask::new(message.round, message.client, partition);
                task.version = message.version;
                task.seed = job.spec.seed;
                task.training = training.clone();
                task.basis = *basis;
                task.settings = job.spec.settings.clone();
                task.payloads = job
                    .payloads(session, message.version, sends, &layout)
                    .await?;
                task.expects = payload::expected(expects);
                let begun = Instant::now();
                let (metadata, payloads) = job.train(model, task, stop).await?;
                let seconds = begun.elapsed().as_secs_f64();
                let (examples, loss) = (metadata.examples, metadata.train_loss());
                session
                    .submit(message, metadata, payloads, deadline, stop)
                    .await?;
                tracing::info!(
                    job = %message.job, round = %message.round, client = %message.client, examples, loss, seconds,
                    "trained and reported"
                );
                Ok(())
            }
            TaskWork::Evaluate { share, shares } => {
                let task = EvalTask {
                    version: message.version,
                    share: *share,
                    shares: *shares,
                };
                let evaluation = job.evaluate(model, message.client, task, stop).await?;
                session.submit_evaluation(message, evaluation).await
            }
        }
    }
}

impl<T: Transport> Session<T> {
    /// Sends a report until there is a verdict, the round is over or the task is not wanted any more.
    async fn submit(
        &self,
        message: &TaskMessage,
        metadata: ReportMetadata,
        payloads: Payloads,
        deadline: Instant,
        stop: &AtomicBool,
    ) -> Result<(), Failure> {
        for tries in 1.. {
            let request = Request::Report {
                credentials: self.credentials(),
                job: message.job,
                round: message.round,
                client: message.client,
                metadata: metadata.clone(),
                body: ReportBody::Memory(payloads.clone()),
            };
            match self.transport.send(request).await {
                Ok(Response::Accepted) => {
                    self.reports.fetch_add(1, Ordering::Relaxed);
                    return Ok(());
                }
                Ok(Response::Refused(refusal)) if !refusal.kind.is_transient() => {
                    return Err(Failure::Refused(refusal));
                }
                Ok(Response::Refused(refusal)) => {
                    tracing::warn!(%refusal, "report not taken yet: trying again")
                }
                Ok(other) => return Err(Failure::Unable(unexpected(&other).to_string())),
                Err(error) if !error.is_transient() => {
                    return Err(Failure::Unable(error.to_string()));
                }
                Err(_) => {}
            }
            let wait = self.config.backoff.random_wait(tries);
            if stop.load(Ordering::Relaxed) || Instant::now() + wait > deadline {
                return Err(Failure::Dropped);
            }
            sleep(wait).await;
        }
        unreachable!("tries are not bounded")
    }

    async fn submit_evaluation(
        &self,
        message: &TaskMessage,
        evaluation: Evaluation,
    ) -> Result<(), Failure> {
        let request = || Request::Evaluation {
            credentials: self.credentials(),
            job: message.job,
            version: message.version,
            client: message.client,
            evaluation: Ok(evaluation.clone()),
        };
        match persist(&*self.transport, &self.config, request).await? {
            Response::Accepted => Ok(()),
            other => Err(refused(other)),
        }
    }
}

/// An answer that is not the one hoped for.
pub(super) fn refused(response: Response) -> Failure {
    match response {
        Response::Refused(refusal) => Failure::Refused(refusal),
        other => Failure::Unable(unexpected(&other).to_string()),
    }
}
