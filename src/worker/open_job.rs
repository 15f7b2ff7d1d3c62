//! What a worker keeps of the job that it works for: its description, models, partitions and clients' states.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
};

use tokio::{sync::Mutex as AsyncMutex, time::sleep};

use super::{
    ClientContext, EvalTask, LocalTrainer, Partition, TrainError, TrainTask, TrainerFactory,
    memory::ClientMemory,
    payload,
    runner::{Session, persist},
    task::{Failure, refused},
};
use crate::{
    backend::Metered,
    ids::{ClientId, JobId, ModelVersion},
    job::JobDescription,
    panics,
    parameters::{
        BodyForm, Encoding, Form, Layout, LayoutError, Parameters, Payloads, Role, Roles,
    },
    protocol::{FROZEN, JobMessage},
    report::ReportMetadata,
    round::Evaluation,
    transport::{ModelBody, Request, Response, Transport},
};

/// The job that is open; one at a time.
#[derive(Default)]
pub(super) struct OpenJobs {
    job: Mutex<Option<Arc<OpenJob>>>,
}

pub(super) struct OpenJob {
    pub id: JobId,
    pub spec: JobDescription,
    /// Whether the model has frozen tensors, which are fetched once.
    has_frozen: bool,
    factory: Arc<dyn TrainerFactory>,
    /// Trainers that are idle; there are never more than slots.
    trainers: Mutex<Vec<Box<dyn LocalTrainer>>>,
    /// The model that was fetched last. One fetch serves all slots.
    model: AsyncMutex<Option<(ModelVersion, Arc<Parameters>)>>,
    frozen: AsyncMutex<Option<Arc<Parameters>>>,
    /// Payloads of the version that was fetched last.
    payloads: AsyncMutex<BTreeMap<String, (ModelVersion, Arc<Parameters>)>>,
    /// With the generation of each; one of an earlier generation is fetched again.
    partitions: Mutex<HashMap<ClientId, (u64, Partition)>>,
    memories: Mutex<HashMap<ClientId, ClientMemory>>,
}

impl OpenJobs {
    /// The job, fetched if it is not the one that is open. What was kept of the one before is dropped.
    pub async fn open<T: Transport>(
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
        let described: JobMessage =
            match persist(&*session.transport, &session.config, request).await? {
                Response::Job(described) => described,
                other => return Err(refused(other)),
            };
        let mut open = locked(&self.job);
        // Another slot can have been quicker.
        if let Some(job) = open.as_ref().filter(|job| job.id == id) {
            return Ok(job.clone());
        }
        let job = Arc::new(OpenJob {
            id,
            spec: described.spec,
            has_frozen: described.frozen,
            factory: session.trainers.clone(),
            trainers: Mutex::default(),
            model: AsyncMutex::default(),
            frozen: AsyncMutex::default(),
            payloads: AsyncMutex::default(),
            partitions: Mutex::default(),
            memories: Mutex::default(),
        });
        *open = Some(job.clone());
        Ok(job)
    }
}

impl OpenJob {
    /// The whole global model of a version: what is sent of it, and the frozen tensors.
    pub async fn model<T: Transport>(
        &self,
        session: &Session<T>,
        version: ModelVersion,
    ) -> Result<Arc<Parameters>, Failure> {
        let mut fetched = self.model.lock().await;
        if let Some((_, model)) = fetched.as_ref().filter(|(found, _)| *found == version) {
            return Ok(model.clone());
        }
        let encoding = self.spec.encoding.models;
        let known = fetched.as_ref().map(|(_, model)| {
            let form = Form::new(encoding, model.layout().clone(), Roles::TRAINED);
            Arc::new(BodyForm::one("", form))
        });
        let mut model = self.fetch(session, version, None, encoding, known).await?;
        if self.has_frozen {
            let frozen = self.frozen(session, version).await?;
            let whole = with_frozen(&model, &frozen);
            model = Arc::new(whole.map_err(|error| Failure::Unable(error.to_string()))?);
        }
        *fetched = Some((version, model.clone()));
        Ok(model)
    }

    async fn frozen<T: Transport>(
        &self,
        session: &Session<T>,
        version: ModelVersion,
    ) -> Result<Arc<Parameters>, Failure> {
        let mut kept = self.frozen.lock().await;
        if let Some(frozen) = kept.as_ref() {
            return Ok(frozen.clone());
        }
        let frozen = self
            .fetch(session, version, Some(FROZEN), Encoding::F32, None)
            .await?;
        *kept = Some(frozen.clone());
        Ok(frozen)
    }

    /// The payloads of a version that a task needs beside the model, each with the model's layout.
    pub async fn payloads<T: Transport>(
        &self,
        session: &Session<T>,
        version: ModelVersion,
        names: &[String],
        layout: &Arc<Layout>,
    ) -> Result<BTreeMap<String, Arc<Parameters>>, Failure> {
        let mut found = BTreeMap::new();
        if names.is_empty() {
            return Ok(found);
        }
        let mut kept = self.payloads.lock().await;
        for name in names {
            let known = kept.get(name).filter(|(of, _)| *of == version);
            let payload = match known {
                Some((_, payload)) => payload.clone(),
                None => {
                    let sent = self.fetch_payload(session, version, name).await?;
                    let whole = on_layout(&sent, layout);
                    let whole =
                        Arc::new(whole.map_err(|error| Failure::Unable(error.to_string()))?);
                    kept.insert(name.clone(), (version, whole.clone()));
                    whole
                }
            };
            found.insert(name.clone(), payload);
        }
        Ok(found)
    }

    async fn fetch_payload<T: Transport>(
        &self,
        session: &Session<T>,
        version: ModelVersion,
        name: &str,
    ) -> Result<Arc<Parameters>, Failure> {
        self.fetch(session, version, Some(name), Encoding::F32, None)
            .await
    }

    /// A model, or a payload beside it.
    async fn fetch<T: Transport>(
        &self,
        session: &Session<T>,
        version: ModelVersion,
        payload: Option<&str>,
        encoding: Encoding,
        known: Option<Arc<BodyForm>>,
    ) -> Result<Arc<Parameters>, Failure> {
        let request = || Request::Model {
            credentials: session.credentials(),
            job: self.id,
            version,
            payload: payload.map(str::to_string),
        };
        for tries in 1.. {
            let body: ModelBody =
                match persist(&*session.transport, &session.config, request).await? {
                    Response::Model(body) => body,
                    other => return Err(refused(other)),
                };
            let collected = match payload {
                Some(name) if name != FROZEN => body.collect_payload(name).await,
                _ => body.collect(encoding, known.clone()).await,
            };
            match collected {
                Ok(model) => return Ok(model),
                Err(error) if tries < 5 => {
                    tracing::warn!(%error, "the model did not come whole: trying again");
                    sleep(session.config.backoff.random_wait(tries)).await;
                }
                Err(error) => return Err(Failure::Unable(error.to_string())),
            }
        }
        unreachable!("the last try returns")
    }

    pub async fn partition<T: Transport>(
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

    /// Trains a client, and makes its report. The state that the report leads to is kept before it is sent, since nobody
    /// knows whether an answer will come.
    pub async fn train(
        self: &Arc<Self>,
        model: Arc<Parameters>,
        task: TrainTask,
        stop: &Arc<AtomicBool>,
    ) -> Result<(ReportMetadata, Payloads), Failure> {
        let (client, round, version) = (task.client, task.round, task.version);
        let choice = locked(&self.memories)
            .entry(client)
            .or_default()
            .choose(task.basis);
        let mut kept = choice.kept;
        // Deltas are taken and encoded on the thread that trained: both pass over the whole model.
        let work = move |trainer: &mut dyn LocalTrainer, context: &mut ClientContext<'_>| {
            let metered = trainer.meter().map(|meter| meter.begin());
            // The wall's time, whatever a test does with tokio's.
            let start = std::time::Instant::now();
            let update = trainer.train(&model, &task, context)?;
            let seconds = start.elapsed().as_secs_f64();
            let energy_joules = metered.and_then(Metered::end);
            let mut metadata = ReportMetadata {
                base_version: version,
                examples: update.examples,
                steps: update.steps,
                metrics: update.metrics.clone(),
                device: trainer.device(),
                seconds: Some(seconds),
                energy_joules,
                state_lost: false,
            };
            // JSON has no form for them, and in one process they are no better.
            metadata.metrics.retain(|_, value| value.is_finite());
            let mut residuals = std::mem::take(&mut kept.residuals);
            let payloads = payload::encode_report(&task.expects, update, &model, &mut residuals);
            let payloads = payloads.map_err(TrainError::Model)?;
            Ok((metadata, payloads, residuals))
        };
        let trained = self.with_trainer(client, kept.state, stop, work).await?;
        let ((mut metadata, payloads, residuals), state) = trained;
        let next = super::memory::Kept { state, residuals };
        let has_state = locked(&self.memories)
            .entry(client)
            .or_default()
            .prepare(round, next);
        metadata.state_lost = choice.is_unknown && has_state;
        Ok((metadata, payloads))
    }

    pub async fn evaluate(
        self: &Arc<Self>,
        model: Arc<Parameters>,
        client: ClientId,
        task: EvalTask,
        stop: &Arc<AtomicBool>,
    ) -> Result<Evaluation, Failure> {
        let state = locked(&self.memories).entry(client).or_default().state();
        let evaluate = move |trainer: &mut dyn LocalTrainer, context: &mut ClientContext<'_>| {
            trainer.evaluate(&model, &task, context)
        };
        let (evaluation, _) = self.with_trainer(client, state, stop, evaluate).await?;
        Ok(evaluation)
    }

    /// Runs `work` with an idle trainer, or a new one, on a blocking thread; the client's state as it leaves it comes back. A
    /// trainer that panicked is not used again.
    async fn with_trainer<R: Send + 'static>(
        self: &Arc<Self>,
        client: ClientId,
        mut state: BTreeMap<String, Parameters>,
        stop: &Arc<AtomicBool>,
        work: impl FnOnce(&mut dyn LocalTrainer, &mut ClientContext<'_>) -> Result<R, TrainError>
        + Send
        + 'static,
    ) -> Result<(R, BTreeMap<String, Parameters>), TrainError> {
        let (job, stop) = (self.clone(), stop.clone());
        let running = tokio::task::spawn_blocking(move || {
            let idle = locked(&job.trainers).pop();
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
            let result = result.unwrap_or_else(|panic| Err(TrainError::Panicked(panic)));
            result.map(|result| (result, state))
        });
        running
            .await
            .unwrap_or_else(|error| Err(TrainError::Panicked(error.to_string())))
    }
}

/// The whole model: what came of it, and the frozen tensors.
fn with_frozen(sent: &Parameters, frozen: &Parameters) -> Result<Parameters, LayoutError> {
    let mut tensors = Vec::new();
    for (parameters, wants_frozen) in [(sent, false), (frozen, true)] {
        for spec in parameters.layout().tensors() {
            if (spec.role == Role::Frozen) == wants_frozen {
                tensors.push((spec.name.clone(), spec.shape.clone(), spec.role));
            }
        }
    }
    let mut whole = Parameters::zeros(Layout::new(tensors)?);
    let layout = whole.layout().clone();
    for spec in layout.tensors() {
        let source = if spec.role == Role::Frozen {
            frozen
        } else {
            sent
        };
        if let Some(values) = source.tensor(&spec.name) {
            whole.values_mut()[spec.range()].copy_from_slice(values);
        }
    }
    Ok(whole)
}

/// A payload's values on the model's layout: zeros for tensors that it does not have.
fn on_layout(sent: &Parameters, layout: &Arc<Layout>) -> Result<Parameters, LayoutError> {
    let mut whole = Parameters::zeros(layout.clone());
    for spec in sent.layout().tensors() {
        let Some(target) = layout.find(&spec.name) else {
            let name = spec.name.clone();
            return Err(LayoutError::Unexpected { name });
        };
        if target.shape != spec.shape {
            return Err(LayoutError::Shape {
                name: spec.name.clone(),
                expected: target.shape.clone(),
                found: spec.shape.clone(),
            });
        }
        let values = &sent.values()[spec.range()];
        whole.values_mut()[target.range()].copy_from_slice(values);
    }
    Ok(whole)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
