//! A coordinator that is made up: it notes what it is asked and answers with fixed values.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use tokio::sync::Semaphore;

use crate::{
    ids::{ClientId, JobId, ModelVersion, RoundId, Timestamp, WorkerId},
    job::{JobSpec, TrainingSettings},
    parameters::{Encoded, Layout, MemoryBody, Parameters, Role, StoredBody, safetensors::Decoder},
    report::{DELTA_PREFIX, Refusal, RefusalKind},
    round::{JobEvent, Outcome},
    telemetry::{Health, JobSummary, LoggedEvent, RoundRecord, WorkerSummary},
    transport::{
        Credentials, DatasetShare, Handler, JobDescription, ModelBody, Operator, Registered,
        ReportBody, Request, Response, TaskMessage, TaskWork, Token,
    },
};

pub(super) struct Fake {
    pub join_token: Option<Token>,
    pub model: Arc<Parameters>,
    /// What was asked, as `Debug` shows it.
    pub asked: Mutex<Vec<String>>,
    /// The deltas that came whole.
    pub reports: Mutex<Vec<Parameters>>,
    pub submitted: Mutex<Vec<(JobSpec, Option<Parameters>)>>,
    /// Reports are refused with this before they are read.
    pub refuse_reports: Option<Refusal>,
    /// Uploads that began and have not ended.
    pub uploading: AtomicUsize,
    /// A permit for each task that polls may take; none: a poll waits for ever.
    pub tasks: Semaphore,
}

pub(super) fn layout(len: usize) -> Arc<Layout> {
    Layout::new([
        ("fc.bias".to_string(), vec![3], Role::Trainable),
        ("fc.weight".to_string(), vec![len], Role::Trainable),
    ])
    .unwrap()
}

/// Values that are all different, as bits.
pub(super) fn parameters(len: usize, seed: u32) -> Parameters {
    let layout = layout(len);
    let value = |index: usize| f32::from_bits((seed + index as u32) & 0x3fff_ffff);
    let values = (0..layout.len()).map(value).collect();
    Parameters::new(layout, values).unwrap()
}

pub(super) fn task() -> TaskMessage {
    TaskMessage {
        job: JobId(1),
        round: RoundId(4),
        client: ClientId(2),
        version: ModelVersion(3),
        work: TaskWork::Train {
            training: TrainingSettings::default(),
            remaining_ms: 1234,
        },
    }
}

pub(super) fn events() -> Vec<LoggedEvent> {
    let events = [
        JobEvent::Started { clients: 3 },
        JobEvent::RoundCommitted {
            round: RoundId(1),
            version: ModelVersion(1),
            clients: vec![ClientId(0), ClientId(2)],
            train_loss: Some(0.1 + 0.2),
        },
        JobEvent::Ended(Outcome::Failed {
            reason: "line one\nline two".to_string(),
        }),
    ];
    let logged = |(index, event)| LoggedEvent {
        sequence: index as u64 + 1,
        time: Timestamp(1_790_000_000_000),
        event,
    };
    events.into_iter().enumerate().map(logged).collect()
}

impl Fake {
    pub fn open() -> Self {
        Self::with_model(parameters(1000, 7))
    }

    pub fn with_model(model: Parameters) -> Self {
        Self {
            join_token: None,
            model: Arc::new(model),
            asked: Mutex::default(),
            reports: Mutex::default(),
            submitted: Mutex::default(),
            refuse_reports: None,
            uploading: AtomicUsize::new(0),
            tasks: Semaphore::new(0),
        }
    }

    pub fn closed() -> Self {
        Self {
            join_token: Some(Token("join".to_string())),
            ..Self::open()
        }
    }

    fn check(&self, Credentials { worker, token }: &Credentials) -> Result<(), Refusal> {
        let known = |worker: u64| token.matches(&Token(format!("token-{worker}")));
        match known(worker.0) {
            true if worker.0 <= 2 => Ok(()),
            _ if known(1) || known(2) => Err(Refusal::new(
                RefusalKind::Forbidden,
                "another worker's token",
            )),
            _ => Err(Refusal::new(RefusalKind::Unauthorized, "who is that?")),
        }
    }

    async fn answer(&self, request: Request) -> Result<Response, Refusal> {
        let credentials = match &request {
            Request::Register { .. } => None,
            Request::Heartbeat { credentials, .. }
            | Request::Leave { credentials }
            | Request::Poll { credentials, .. }
            | Request::Job { credentials, .. }
            | Request::Partition { credentials, .. }
            | Request::Model { credentials, .. }
            | Request::Report { credentials, .. }
            | Request::TaskFailed { credentials, .. }
            | Request::Evaluation { credentials, .. } => Some(credentials),
        };
        credentials.map_or(Ok(()), |credentials| self.check(credentials))?;
        Ok(match request {
            Request::Register { join_token, .. } => {
                self.authorize(join_token.as_ref())?;
                Response::Registered(Registered {
                    worker: WorkerId(1),
                    token: Token("token-1".to_string()),
                    heartbeat_ms: 5,
                    poll_ms: 6,
                })
            }
            Request::Heartbeat { busy, .. } => Response::Alive { unwanted: busy },
            Request::Poll { wait, .. } if wait.is_zero() => Response::Idle,
            Request::Poll { .. } => {
                self.tasks.acquire().await.unwrap().forget();
                Response::Task(task())
            }
            Request::Job { job, .. } => Response::Job(JobDescription {
                job,
                spec: JobSpec::default(),
            }),
            Request::Partition { client, .. } => Response::Partition(DatasetShare {
                dataset: "digits".to_string(),
                fingerprint: "abc".to_string(),
                indices: (client.0 > 0).then(|| Arc::from([1, 5, u32::MAX])),
            }),
            Request::Model { version, .. } if version.0 > 3 => {
                return Err(Refusal::new(RefusalKind::NotFound, "no such version"));
            }
            Request::Model { .. } => Response::Model(ModelBody::Stored(self.body())),
            Request::Report { body, .. } => {
                if let Some(refusal) = &self.refuse_reports {
                    return Err(refusal.clone());
                }
                self.uploading.fetch_add(1, Ordering::SeqCst);
                let taken = self.take(body).await;
                self.uploading.fetch_sub(1, Ordering::SeqCst);
                self.reports.lock().unwrap().push(taken?);
                Response::Accepted
            }
            Request::Leave { .. } | Request::TaskFailed { .. } | Request::Evaluation { .. } => {
                Response::Accepted
            }
        })
    }

    fn body(&self) -> Arc<dyn StoredBody> {
        MemoryBody::new(Encoded::plain(self.model.clone()))
    }

    async fn take(&self, body: ReportBody) -> Result<Parameters, Refusal> {
        let mut bytes = match body {
            ReportBody::Memory(delta) => return Ok((*delta.decode().unwrap()).clone()),
            ReportBody::Stream { bytes, .. } => bytes,
        };
        let refuse = |kind| move |text: String| Refusal::new(kind, text);
        let truncated = refuse(RefusalKind::Truncated);
        let malformed = refuse(RefusalKind::Malformed);
        let mut decoder = Decoder::new(self.model.layout().clone(), DELTA_PREFIX);
        while let Some(piece) = bytes
            .try_next()
            .await
            .map_err(|error| truncated(error.to_string()))?
        {
            decoder
                .push(&piece)
                .map_err(|error| malformed(error.to_string()))?;
        }
        decoder
            .finish()
            .map_err(|error| malformed(error.to_string()))
    }

    pub fn summary(&self, job: JobId, spec: JobSpec) -> JobSummary {
        JobSummary {
            job,
            spec,
            phase: "collecting".to_string(),
            detail: "waits".to_string(),
            outcome: Some(Outcome::Completed),
            clients: Some(3),
            round: RoundId(4),
            version: ModelVersion(3),
            accepted: 1,
            goal: 2,
            parameters: 99,
            submitted: Timestamp(5),
            ended: None,
        }
    }
}

impl Handler for Fake {
    async fn handle(&self, request: Request) -> Response {
        self.asked.lock().unwrap().push(format!("{request:?}"));
        self.answer(request).await.unwrap_or_else(Response::Refused)
    }
}

fn known(job: JobId) -> Result<(), Refusal> {
    match job.0 {
        1 => Ok(()),
        _ => Err(Refusal::new(RefusalKind::UnknownJob, format!("job {job}"))),
    }
}

impl Operator for Fake {
    fn authorize(&self, token: Option<&Token>) -> Result<(), Refusal> {
        match (&self.join_token, token) {
            (None, _) => Ok(()),
            (Some(join), Some(token)) if join.matches(token) => Ok(()),
            _ => Err(Refusal::new(RefusalKind::Unauthorized, "no join token")),
        }
    }

    fn submit(&self, spec: JobSpec, initial: Option<Parameters>) -> Result<JobSummary, Refusal> {
        self.submitted.lock().unwrap().push((spec.clone(), initial));
        Ok(self.summary(JobId(1), spec))
    }

    fn jobs(&self) -> Vec<JobSummary> {
        vec![self.summary(JobId(1), JobSpec::default())]
    }

    fn job(&self, job: JobId) -> Result<JobSummary, Refusal> {
        known(job)?;
        Ok(self.summary(job, JobSpec::default()))
    }

    fn rounds(&self, job: JobId) -> Result<Vec<RoundRecord>, Refusal> {
        known(job)?;
        Ok(vec![RoundRecord {
            round: RoundId(1),
            version: Some(ModelVersion(1)),
            abandoned: None,
            test_loss: Some(0.5),
            test_accuracy: None,
            train_loss: Some(1.25),
            seconds: 0.125,
            bytes: 77,
            clients: vec![ClientId(0)],
        }])
    }

    async fn cancel(&self, job: JobId) -> Result<JobSummary, Refusal> {
        known(job)?;
        Err(Refusal::new(RefusalKind::Conflict, "it has ended"))
    }

    fn events(
        &self,
        job: JobId,
        after: u64,
    ) -> Result<impl Stream<Item = LoggedEvent> + Send + 'static, Refusal> {
        known(job)?;
        let past = events()
            .into_iter()
            .filter(move |event| event.sequence > after);
        // After the last event, 100: a stream without an end.
        let more = match after {
            100 => stream::pending().left_stream(),
            _ => stream::empty().right_stream(),
        };
        Ok(stream::iter(past).chain(more))
    }

    fn workers(&self) -> Vec<WorkerSummary> {
        Vec::new()
    }

    fn model(
        &self,
        job: JobId,
        version: Option<ModelVersion>,
    ) -> Result<(ModelVersion, Arc<dyn StoredBody>), Refusal> {
        known(job)?;
        let version = version.unwrap_or(ModelVersion(3));
        match version.0 {
            3 => Ok((version, self.body())),
            _ => Err(Refusal::new(RefusalKind::Gone, "not kept")),
        }
    }

    fn health(&self) -> Health {
        Health {
            version: "0.1.0".to_string(),
            protocol: 1,
            workers: 2,
            running: None,
            queued: 0,
        }
    }
}
