//! What a worker keeps of the job that it works for: its description, models, partitions and clients' states. What it
//! lacks is fetched here, once for all slots; it must never train.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use tokio::{sync::Mutex as AsyncMutex, time::sleep};

use super::{
    Partition, TrainerFactory,
    client_states::ClientStates,
    failure::Failure,
    idle_trainers::IdleTrainers,
    locked::locked,
    session::Session,
    whole_model::{on_layout, with_frozen},
};
use crate::{
    computing::Computing,
    ids::{ClientId, JobId, ModelVersion},
    job::JobDescription,
    parameters::{BodyForm, Encoding, Form, Layout, Parameters, Roles, TensorPatterns},
    protocol::{FROZEN, JobMessage},
    transport::{BodyError, ModelBody, Request, Response, Transport},
};

/// How often a model is fetched whose body breaks off each time.
const FETCH_TRIES: u32 = 5;

/// A job that this worker works for.
pub(super) struct OpenJob {
    pub id: JobId,
    pub spec: JobDescription,
    /// The tensors that each client keeps for itself.
    pub personal: TensorPatterns,
    /// Whether the model has frozen tensors, which are fetched once.
    has_frozen: bool,
    pub factory: Arc<dyn TrainerFactory>,
    pub computing: Computing,
    /// Those of all open jobs.
    pub trainers: Arc<IdleTrainers>,
    fetched: Fetched,
    /// With the generation of each; one of an earlier generation is fetched again.
    partitions: Mutex<HashMap<ClientId, (u64, Partition)>>,
    pub states: Arc<ClientStates>,
}

/// The values that were fetched last. Each lock is held while they are fetched, so that one fetch serves all slots.
#[derive(Default)]
struct Fetched {
    model: AsyncMutex<Option<(ModelVersion, Arc<Parameters>)>>,
    frozen: AsyncMutex<Option<Arc<Parameters>>>,
    payloads: AsyncMutex<BTreeMap<String, (ModelVersion, Arc<Parameters>)>>,
}

impl OpenJob {
    pub fn new(
        id: JobId,
        described: JobMessage,
        factory: Arc<dyn TrainerFactory>,
        computing: Computing,
        trainers: Arc<IdleTrainers>,
        states: Arc<ClientStates>,
    ) -> Self {
        Self {
            id,
            personal: TensorPatterns::new(described.spec.personal.clone()),
            spec: described.spec,
            has_frozen: described.frozen,
            factory,
            computing,
            trainers,
            fetched: Fetched::default(),
            partitions: Mutex::default(),
            states,
        }
    }

    /// Returns the whole global model of a version: what is sent of it, and the frozen tensors.
    pub async fn model<T: Transport>(
        &self,
        session: &Session<T>,
        version: ModelVersion,
    ) -> Result<Arc<Parameters>, Failure> {
        let mut fetched = self.fetched.model.lock().await;
        if let Some((found, model)) = fetched.as_ref()
            && *found == version
        {
            return Ok(model.clone());
        }
        let encoding = self.spec.encoding.models;
        // The form of the last version is that of this one, too: a body of that form need not be parsed again.
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
        let mut kept = self.fetched.frozen.lock().await;
        if let Some(frozen) = kept.as_ref() {
            return Ok(frozen.clone());
        }
        let frozen = self
            .fetch(session, version, Some(FROZEN), Encoding::F32, None)
            .await?;
        *kept = Some(frozen.clone());
        Ok(frozen)
    }

    /// Returns the payloads of a version that a task needs beside the model, each with the model's layout.
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
        let mut kept = self.fetched.payloads.lock().await;
        for name in names {
            if let Some((of, payload)) = kept.get(name)
                && *of == version
            {
                found.insert(name.clone(), payload.clone());
                continue;
            }
            let sent = self
                .fetch(session, version, Some(name), Encoding::F32, None)
                .await?;
            let payload = on_layout(&sent, layout);
            let payload = Arc::new(payload.map_err(|error| Failure::Unable(error.to_string()))?);
            kept.insert(name.clone(), (version, payload.clone()));
            found.insert(name.clone(), payload);
        }
        Ok(found)
    }

    /// Fetches a model, or a payload beside it.
    async fn fetch<T: Transport>(
        &self,
        session: &Session<T>,
        version: ModelVersion,
        payload: Option<&str>,
        encoding: Encoding,
        known: Option<Arc<BodyForm>>,
    ) -> Result<Arc<Parameters>, Failure> {
        let mut waits = session.config.backoff.waits();
        let mut tries = 0;
        loop {
            let answer = session.ask(|| Request::Model {
                credentials: session.credentials(),
                job: self.id,
                version,
                payload: payload.map(str::to_string),
            });
            let body: ModelBody = match answer.await? {
                Response::Model(body) => body,
                other => return Err(Failure::of_answer(other)),
            };
            // Before a byte of it is read, if it says how long it is.
            let body = body.within(session.config.limits.model_bytes);
            let body = body.map_err(|error| Failure::Unable(error.to_string()))?;
            let collected = match payload {
                // Frozen tensors are a part of the model, and come in the same form.
                Some(name) if name != FROZEN => body.collect_payload(name).await,
                _ => body.collect(encoding, known.clone()).await,
            };
            tries += 1;
            match collected {
                Ok(model) => return Ok(model),
                // The transport resumes downloads that break off; what is left for this are bodies that it can't
                // mend: a wrong digest, for example.
                Err(error @ BodyError::ModelTooLarge { .. }) => {
                    return Err(Failure::Unable(error.to_string()));
                }
                Err(error) if tries < FETCH_TRIES => {
                    tracing::warn!(%error, "the model did not come whole: trying again");
                    sleep(waits.next_wait()).await;
                }
                Err(error) => return Err(Failure::Unable(error.to_string())),
            }
        }
    }

    /// Returns a client's partition.
    pub async fn partition<T: Transport>(
        &self,
        session: &Session<T>,
        client: ClientId,
        generation: u64,
    ) -> Result<Partition, Failure> {
        if let Some((of, partition)) = locked(&self.partitions).get(&client)
            && *of == generation
        {
            return Ok(partition.clone());
        }
        let answer = session.ask(|| Request::Partition {
            credentials: session.credentials(),
            job: self.id,
            client,
        });
        let dealt = match answer.await? {
            Response::Partition(dealt) => dealt,
            other => return Err(Failure::of_answer(other)),
        };
        session.config.limits.check_dataset(&dealt.dataset)?;
        let partition = match dealt.indices {
            Some(indices) => {
                let found = session.trainers.dataset(&dealt.dataset)?.fingerprint;
                if found != dealt.fingerprint {
                    // The same indices would be other examples here.
                    return Err(Failure::Unable(format!(
                        "the copy of {} here is another one than the coordinator's: its fingerprint is {found}, and {} \
                         was expected; put the same files in place here",
                        dealt.dataset, dealt.fingerprint
                    )));
                }
                Partition::Indices(indices)
            }
            None => Partition::Everything,
        };
        locked(&self.partitions).insert(client, (generation, partition.clone()));
        Ok(partition)
    }
}
