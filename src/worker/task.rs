//! One task from its beginning to its end: what it needs is fetched, the client trains, and the report goes out.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Mutex as AsyncMutex,
    time::{Instant, sleep},
};

use super::{
    ClientContext, EvalTask, LocalTrainer, LocalUpdate, Partition, TrainError, TrainTask,
    TrainerFactory, WorkerError,
    runner::{Session, persist, unexpected},
};
use crate::{
    backend::Metered,
    ids::{ClientId, JobId, ModelVersion},
    job::{JobDescription, TrainingSettings},
    panics,
    parameters::{Encoded, Encoding, Parameters, encode, encode_top_k},
    report::{Refusal, ReportMetadata},
    round::Evaluation,
    transport::{ReportBody, Request, Response, TaskMessage, TaskWork, Transport},
};

/// What a worker keeps of the job that it works for.
#[derive(Default)]
pub(super) struct Desk {
    job: Mutex<Option<Arc<OpenJob>>>,
}

struct OpenJob {
    id: JobId,
    spec: JobDescription,
    factory: Arc<dyn TrainerFactory>,
    /// Trainers that are idle; there are never more than slots.
    trainers: Mutex<Vec<Box<dyn LocalTrainer>>>,
    /// The model that was fetched last. One fetch serves all slots.
    model: AsyncMutex<Option<(ModelVersion, Arc<Parameters>)>>,
    /// With the generation of each; one of an earlier generation is fetched anew.
    partitions: Mutex<HashMap<ClientId, (u64, Partition)>>,
    /// What clients keep between rounds.
    states: Mutex<HashMap<ClientId, BTreeMap<String, Parameters>>>,
    /// What sparse reports of clients have left out so far.
    residuals: Mutex<HashMap<ClientId, Parameters>>,
}

/// Why a task came to nothing.
enum Failure {
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

impl Desk {
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
                ..
            } => {
                let deadline = Instant::now() + Duration::from_millis(*remaining_ms);
                let partition = job.partition(session, message.client, *generation).await?;
                let task = train_task(&job, message, training, partition);
                let (metadata, delta, residual) = job.train(model, task, stop).await?;
                session
                    .submit(message, metadata, delta, deadline, stop)
                    .await?;
                // Only now is what was left out of this report owed to a later one; else all of it is as if the client
                // had not taken part.
                if let Some(residual) = residual {
                    locked(&job.residuals).insert(message.client, residual);
                }
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

    /// The job, fetched where it is not the one that is open. What was kept of the one before is dropped.
    async fn open<T: Transport>(
        &self,
        session: &Session<T>,
        id: JobId,
    ) -> Result<Arc<OpenJob>, Failure> {
        if let Some(job) = locked(&self.job).as_ref().filter(|job| job.id == id) {
            return Ok(job.clone());
        }
        let request = || Request::Job {
            credentials: session.credentials(),
            job: id,
        };
        let spec = match persist(&*session.transport, &session.config, request).await? {
            Response::Job(description) => description.spec,
            other => return Err(refused(other)),
        };
        let mut open = locked(&self.job);
        // Another slot can have been quicker.
        if let Some(job) = open.as_ref().filter(|job| job.id == id) {
            return Ok(job.clone());
        }
        let job = Arc::new(OpenJob {
            id,
            spec,
            factory: session.trainers.clone(),
            trainers: Mutex::default(),
            model: AsyncMutex::default(),
            partitions: Mutex::default(),
            states: Mutex::default(),
            residuals: Mutex::default(),
        });
        *open = Some(job.clone());
        Ok(job)
    }
}

impl OpenJob {
    async fn model<T: Transport>(
        &self,
        session: &Session<T>,
        version: ModelVersion,
    ) -> Result<Arc<Parameters>, Failure> {
        let mut fetched = self.model.lock().await;
        if let Some((_, model)) = fetched.as_ref().filter(|(found, _)| *found == version) {
            return Ok(model.clone());
        }
        let layout = fetched.as_ref().map(|(_, model)| model.layout().clone());
        let request = || Request::Model {
            credentials: session.credentials(),
            job: self.id,
            version,
        };
        for tries in 1.. {
            let body = match persist(&*session.transport, &session.config, request).await? {
                Response::Model(body) => body,
                other => return Err(refused(other)),
            };
            let encoding = self.spec.encoding.models;
            match body.collect(encoding, layout.clone()).await {
                Ok(model) => {
                    *fetched = Some((version, model.clone()));
                    return Ok(model);
                }
                Err(error) if tries < 5 => {
                    tracing::warn!(%error, "the model did not come whole: trying again");
                    sleep(session.config.backoff.random_wait(tries)).await;
                }
                Err(error) => return Err(Failure::Unable(error.to_string())),
            }
        }
        unreachable!("the last try returns")
    }

    async fn partition<T: Transport>(
        &self,
        session: &Session<T>,
        client: ClientId,
        generation: u64,
    ) -> Result<Partition, Failure> {
        if let Some((_, partition)) = locked(&self.partitions)
            .get(&client)
            .filter(|(of, _)| *of == generation)
        {
            return Ok(partition.clone());
        }
        let request = || Request::Partition {
            credentials: session.credentials(),
            job: self.id,
            client,
        };
        let share = match persist(&*session.transport, &session.config, request).await? {
            Response::Partition(share) => share,
            other => return Err(refused(other)),
        };
        let partition = match share.indices {
            Some(indices) => {
                let found = session.trainers.dataset(&share.dataset)?.fingerprint;
                if found != share.fingerprint {
                    return Err(Failure::Unable(format!(
                        "the examples are of {:?} with fingerprint {:?}, and the copy here has {found:?}",
                        share.dataset, share.fingerprint
                    )));
                }
                Partition::Indices(indices)
            }
            None => Partition::Everything,
        };
        locked(&self.partitions).insert(client, (generation, partition.clone()));
        Ok(partition)
    }

    async fn train(
        self: &Arc<Self>,
        model: Arc<Parameters>,
        task: TrainTask,
        stop: &Arc<AtomicBool>,
    ) -> Result<(ReportMetadata, Encoded, Option<Parameters>), Failure> {
        let (client, version) = (task.client, task.version);
        let residual = locked(&self.residuals).get(&client).cloned();
        let encoding = self.spec.encoding.reports;
        // The delta is taken and encoded where the training was: both pass over the whole model.
        let work = move |trainer: &mut dyn LocalTrainer, context: &mut ClientContext<'_>| {
            let metered = trainer.meter().map(|meter| meter.begin());
            // The wall's time, whatever a test does with tokio's.
            let start = std::time::Instant::now();
            let LocalUpdate {
                parameters,
                examples,
                steps,
                metrics,
            } = trainer.train(&model, &task, context)?;
            let seconds = start.elapsed().as_secs_f64();
            let energy_joules = metered.and_then(Metered::end);
            let (delta, residual) = encode_delta(encoding, parameters, &model, residual.as_ref())
                .map_err(TrainError::Model)?;
            let metadata = ReportMetadata {
                base_version: version,
                examples,
                steps,
                metrics,
                device: trainer.device(),
                seconds: Some(seconds),
                energy_joules,
                state_lost: false,
            };
            Ok((metadata, delta, residual))
        };
        Ok(self.with_trainer(client, stop, work).await?)
    }

    async fn evaluate(
        self: &Arc<Self>,
        model: Arc<Parameters>,
        client: ClientId,
        task: EvalTask,
        stop: &Arc<AtomicBool>,
    ) -> Result<Evaluation, Failure> {
        let evaluate = move |trainer: &mut dyn LocalTrainer, context: &mut ClientContext<'_>| {
            trainer.evaluate(&model, &task, context)
        };
        Ok(self.with_trainer(client, stop, evaluate).await?)
    }

    /// Runs `work` with an idle trainer, or a new one, on a blocking thread. A trainer that panicked is not used again.
    async fn with_trainer<R: Send + 'static>(
        self: &Arc<Self>,
        client: ClientId,
        stop: &Arc<AtomicBool>,
        work: impl FnOnce(&mut dyn LocalTrainer, &mut ClientContext<'_>) -> Result<R, TrainError>
        + Send
        + 'static,
    ) -> Result<R, TrainError> {
        let (job, stop) = (self.clone(), stop.clone());
        let running = tokio::task::spawn_blocking(move || {
            let idle = locked(&job.trainers).pop();
            let mut state = locked(&job.states).remove(&client).unwrap_or_default();
            let result = panics::caught(|| {
                let mut trainer = match idle {
                    Some(trainer) => trainer,
                    None => job.factory.trainer(&job.spec)?,
                };
                let mut context = ClientContext {
                    client,
                    state: &mut state,
                    cancelled: &stop,
                    progress: &mut |_, _| {},
                };
                let result = work(&mut *trainer, &mut context);
                locked(&job.trainers).push(trainer);
                result
            });
            locked(&job.states).insert(client, state);
            result.unwrap_or_else(|panic| Err(TrainError::Panicked(panic)))
        });
        running
            .await
            .unwrap_or_else(|error| Err(TrainError::Panicked(error.to_string())))
    }
}

impl<T: Transport> Session<T> {
    /// Sends a report until there is a verdict, the round is over or nobody wants it any more.
    async fn submit(
        &self,
        message: &TaskMessage,
        metadata: ReportMetadata,
        delta: Encoded,
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
                body: ReportBody::Memory(delta.clone()),
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
                Err(error) => tracing::warn!(%error, "report not sent: trying again"),
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

/// The delta of a local model in the job's encoding and, for a sparse one, what it leaves out: its own rest and what
/// earlier reports left out, added up.
fn encode_delta(
    encoding: Encoding,
    local: Parameters,
    global: &Parameters,
    residual: Option<&Parameters>,
) -> Result<(Encoded, Option<Parameters>), String> {
    let mut delta = local
        .into_delta(global)
        .map_err(|error| error.to_string())?;
    if encoding.is_dense() {
        let encoded = encode(encoding, &Arc::new(delta)).map_err(|error| error.to_string())?;
        return Ok((encoded, None));
    }
    if let Some(residual) = residual {
        for (value, left_out) in delta.values_mut().iter_mut().zip(residual.values()) {
            *value += left_out;
        }
    }
    let encoded = encode_top_k(encoding, &mut delta).map_err(|error| error.to_string())?;
    Ok((encoded, Some(delta)))
}

fn train_task(
    job: &OpenJob,
    message: &TaskMessage,
    training: &TrainingSettings,
    partition: Partition,
) -> TrainTask {
    TrainTask {
        round: message.round,
        client: message.client,
        version: message.version,
        seed: job.spec.seed,
        training: training.clone(),
        partition,
    }
}

/// An answer that is not the one hoped for.
fn refused(response: Response) -> Failure {
    match response {
        Response::Refused(refusal) => Failure::Refused(refusal),
        other => Failure::Unable(unexpected(&other).to_string()),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
