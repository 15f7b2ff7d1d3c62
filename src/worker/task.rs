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
    EvalTask, Partition, TrainTask,
    failure::{Failure, unexpected},
    open_jobs::OpenJobs,
    payload,
    session::Session,
};
use crate::{
    job::{EvalSplit, JobDescription, ValidationSplit},
    parameters::Payloads,
    protocol::{TaskMessage, TaskWork},
    report::{Refusal, ReportMetadata},
    round::Evaluation,
    transport::{ReportBody, Request, Response, Transport},
};

impl OpenJobs {
    /// Does a task. What the coordinator refuses comes back, for the session to look at.
    pub async fn perform<T: Transport>(
        &self,
        session: &Session<T>,
        message: &TaskMessage,
        stop: &Arc<AtomicBool>,
    ) -> Result<(), Refusal> {
        let reason = match self.attempt(session, message, stop).await {
            Ok(()) | Err(Failure::Dropped) => return Ok(()),
            Err(Failure::Refused(refusal)) => return Err(refusal),
            Err(Failure::Unable(reason)) => reason,
        };
        tracing::warn!(job = %message.job, round = %message.round, client = %message.client, reason, "task failed");
        let answer = session.ask(|| failed(session, message, reason.clone()));
        match answer.await {
            Ok(Response::Refused(refusal)) => Err(refusal),
            // If the coordinator can't be told, it finds out at the round's deadline.
            _ => Ok(()),
        }
    }

    async fn attempt<T: Transport>(
        &self,
        session: &Session<T>,
        message: &TaskMessage,
        stop: &Arc<AtomicBool>,
    ) -> Result<(), Failure> {
        // The time that the task has left counts from here: what is fetched first takes a part of it.
        let received = Instant::now();
        let job = self.open(session, message.job).await?;
        // All that can be refused is refused before the model is fetched, which may be large.
        let limits = &session.config.limits;
        limits.check_job(&job.spec)?;
        match &message.work {
            TaskWork::Train {
                training,
                remaining_ms,
                generation,
                basis,
                sends,
                expects,
                objective,
            } => {
                // As a length of time, since clocks of two machines differ.
                let deadline = received + Duration::from_millis(*remaining_ms);
                let partition = job.partition(session, message.client, *generation).await?;
                let partition = without_validation(session, &job.spec, partition)?;
                if limits.needs_examples() {
                    let examples = examples_of(session, &job.spec.dataset, &partition)?;
                    limits.check_training(training, examples)?;
                }
                let model = job.model(session, message.version).await?;
                let layout = model.layout().clone();
                let mut task = TrainTask::new(message.round, message.client, partition);
                task.version = message.version;
                task.seed = job.spec.seed;
                task.training = training.clone();
                task.objective = objective.clone();
                task.basis = *basis;
                task.personal = job.personal.clone();
                task.settings = job.spec.settings.clone();
                // Before training begins: a payload that can't be fetched must not cost a training.
                task.payloads = job
                    .payloads(session, message.version, sends, &layout)
                    .await?;
                task.expects = payload::expected(expects);
                let begun = Instant::now();
                let (metadata, payloads) =
                    limits.in_time(stop, job.train(model, task, stop)).await?;
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
            TaskWork::Evaluate {
                share,
                shares,
                split,
                basis,
            } => {
                let mut task = EvalTask::test(message.version, *share, *shares);
                if *split == EvalSplit::Validation {
                    task.training = Some(validation_share(session, &job.spec, &task)?);
                }
                let model = job.model(session, message.version).await?;
                let of = (message.round, *basis);
                let evaluated = job.evaluate(model, message.client, of, task, stop);
                let evaluation = limits.in_time(stop, evaluated).await?;
                session.submit_evaluation(message, evaluation).await
            }
        }
    }
}

/// What a client trains on: data of the worker's own is without the part that it keeps for validation. Of data that was dealt, nobody
/// has that part.
fn without_validation<T: Transport>(
    session: &Session<T>,
    spec: &JobDescription,
    partition: Partition,
) -> Result<Partition, Failure> {
    if spec.validation == 0.0 || partition != Partition::Everything {
        return Ok(partition);
    }
    let training = validation_split(session, spec)?.training;
    Ok(Partition::Indices(training.into()))
}

/// The examples of the training split that a share of the validation split is.
fn validation_share<T: Transport>(
    session: &Session<T>,
    spec: &JobDescription,
    task: &EvalTask,
) -> Result<Arc<[u32]>, Failure> {
    let kept = validation_split(session, spec)?.validation;
    let share = task.examples(kept.len() as u32)?;
    Ok(kept[share.start as usize..share.end as usize].into())
}

fn validation_split<T: Transport>(
    session: &Session<T>,
    spec: &JobDescription,
) -> Result<ValidationSplit, Failure> {
    let count = session.trainers.dataset(&spec.dataset)?.train_examples;
    let drawn = spec.validation_split(count as usize);
    drawn.map_err(|error| Failure::Unable(error.to_string()))
}

/// How many examples a client has.
fn examples_of<T: Transport>(
    session: &Session<T>,
    dataset: &str,
    partition: &Partition,
) -> Result<u64, Failure> {
    match partition {
        Partition::Indices(indices) => Ok(indices.len() as u64),
        Partition::Everything => Ok(session.trainers.dataset(dataset)?.train_examples),
    }
}

/// Says that a task can't be done, and why.
fn failed<T: Transport>(session: &Session<T>, message: &TaskMessage, reason: String) -> Request {
    let credentials = session.credentials();
    match message.work {
        TaskWork::Train { .. } => Request::TaskFailed {
            credentials,
            job: message.job,
            round: message.round,
            client: message.client,
            reason,
        },
        TaskWork::Evaluate { split, .. } => Request::Evaluation {
            credentials,
            job: message.job,
            version: message.version,
            split,
            client: message.client,
            evaluation: Err(reason),
        },
    }
}

impl<T: Transport> Session<T> {
    /// Sends a report until there is a verdict, the round is over or the task is cancelled.
    async fn submit(
        &self,
        message: &TaskMessage,
        metadata: ReportMetadata,
        payloads: Payloads,
        deadline: Instant,
        stop: &AtomicBool,
    ) -> Result<(), Failure> {
        // Not by `persist`, whose patience is the worker's: a report is of use to the end of its round.
        let mut waits = self.config.backoff.waits();
        let mut was_told = false;
        loop {
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
                    self.note_accepted();
                    return Ok(());
                }
                Ok(Response::Refused(refusal)) if !refusal.kind.is_transient() => {
                    return Err(Failure::Refused(refusal));
                }
                // Once for each report: every try says the same.
                Ok(Response::Refused(refusal)) if !was_told => {
                    was_told = true;
                    tracing::warn!(%refusal, "report not taken yet: trying again")
                }
                Ok(Response::Refused(_)) => {}
                Ok(other) => return Err(Failure::Unable(unexpected(&other).to_string())),
                Err(error) if !error.is_transient() => {
                    return Err(Failure::Unable(error.to_string()));
                }
                // The transport has logged it, as a part of the outage.
                Err(_) => {}
            }
            let wait = waits.next_wait();
            // After the deadline the coordinator refuses it.
            if stop.load(Ordering::Relaxed) || Instant::now() + wait > deadline {
                return Err(Failure::Dropped);
            }
            sleep(wait).await;
        }
    }

    async fn submit_evaluation(
        &self,
        message: &TaskMessage,
        evaluation: Evaluation,
    ) -> Result<(), Failure> {
        let split = match message.work {
            TaskWork::Evaluate { split, .. } => split,
            TaskWork::Train { .. } => EvalSplit::Test,
        };
        let answer = self.ask(|| Request::Evaluation {
            credentials: self.credentials(),
            job: message.job,
            version: message.version,
            split,
            client: message.client,
            evaluation: Ok(evaluation.clone()),
        });
        match answer.await? {
            Response::Accepted => Ok(()),
            other => Err(Failure::of_answer(other)),
        }
    }
}
