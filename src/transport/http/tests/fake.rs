//! A coordinator that is made up: it notes what it is asked and answers with fixed values.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::{StreamExt, TryStreamExt, future::BoxFuture, stream};
use tokio::sync::Semaphore;

use crate::{
    ids::{ClientId, CoordinatorId, JobId, ModelVersion, RoundId, Timestamp, WorkerId},
    job::{JobSpec, TrainingSettings},
    parameters::{
        BlockError, BodyDecoder, BodyForm, Digest, Encoded, Encoding, Form, Layout, MemoryBody,
        MemorySink, Parameters, Role, Roles, StoredBody, safetensors,
    },
    protocol::{
        Contribution, DatasetPartition, Health, JobMessage, JobSummary, LoggedEvent, OwnAccess,
        Registered, RoundRecord, Scope, TaskMessage, TaskWork, Token, WorkerSummary,
    },
    report::{DELTA, Refusal, RefusalKind, ReportMetadata},
    round::{Excluded, JobEvent, Outcome},
    telemetry::{ClientMetrics, ClientMetricsLimit},
    transport::{
        Answer, BodyError, Caller, Credentials, Events, Handler, ModelBody, Operator,
        OperatorError, Page, Peer, ReportBody, Request, Requester, Response, Submission,
    },
};

pub(super) struct Fake {
    pub join_token: Option<Token>,
    pub model: Arc<Parameters>,
    /// The model as it is served; without it, from memory.
    pub stored: Option<Arc<dyn StoredBody>>,
    /// What was asked, as `Debug` shows it.
    pub asked: Mutex<Vec<String>>,
    /// Who asked.
    pub peers: Mutex<Vec<Peer>>,
    /// The deltas that came whole.
    pub reports: Mutex<Vec<Parameters>>,
    /// The digests that were said of reports.
    pub digests: Mutex<Vec<Option<Digest>>>,
    pub submitted: Mutex<Vec<(JobSpec, Option<Arc<Parameters>>)>>,
    /// Reports are refused with this before they are read.
    pub refuse_reports: Option<Refusal>,
    /// Uploads that began and have not ended.
    pub uploading: AtomicUsize,
    /// A permit for each task that polls may take; none: a poll waits forever.
    pub tasks: Semaphore,
    /// What lists have.
    pub workers: Mutex<Vec<WorkerSummary>>,
    /// The pages of lists that were given out.
    pub pages: AtomicUsize,
}

/// The most entries of a page.
pub(super) const PAGE: usize = 3;

pub(super) fn layout(len: usize) -> Arc<Layout> {
    Layout::new([
        ("fc.bias".to_string(), vec![3], Role::Trainable),
        ("fc.weight".to_string(), vec![len], Role::Trainable),
    ])
    .unwrap()
}

/// The file of a model, as it were on a disk: it is read piece by piece.
pub(super) struct OnDisk {
    pub bytes: Vec<u8>,
    pub digest: Digest,
    /// How often it was read.
    pub reads: AtomicUsize,
    /// A byte that can't be read, and how often that happens.
    pub hole: Option<u64>,
    pub failures: AtomicUsize,
}

impl OnDisk {
    pub fn new(model: &Parameters) -> Self {
        let bytes = safetensors::encode(model);
        Self {
            digest: Digest::of(&bytes),
            bytes,
            reads: AtomicUsize::new(0),
            hole: None,
            failures: AtomicUsize::new(usize::MAX),
        }
    }
}

impl StoredBody for OnDisk {
    fn encoding(&self) -> Encoding {
        Encoding::F32
    }

    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn digest(&self) -> Digest {
        self.digest
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), BlockError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let end = offset + bytes.len() as u64;
        if self.hole.is_some_and(|hole| (offset..end).contains(&hole)) {
            let less = |left: usize| left.checked_sub(1);
            let failures = &self.failures;
            let left = failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
            if left.is_ok() {
                return Err(BlockError::Unreadable("a hole".into()));
            }
        }
        bytes.copy_from_slice(&self.bytes[offset as usize..end as usize]);
        Ok(())
    }
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
            basis: None,
            sends: Vec::new(),
            expects: Vec::new(),
            objective: Default::default(),
            training: TrainingSettings::default(),
            remaining_ms: 1234,
            generation: 3,
        },
        kept: Vec::new(),
        running: Vec::new(),
    }
}

pub(super) fn events() -> Vec<LoggedEvent> {
    let events = [
        JobEvent::Started { clients: 3 },
        JobEvent::RoundCommitted {
            round: RoundId(1),
            version: ModelVersion(1),
            accepted: vec![ClientId(0), ClientId(1), ClientId(2)],
            folded: vec![ClientId(0), ClientId(2)],
            excluded: vec![Excluded {
                client: ClientId(1),
                reason: "too far".to_string(),
            }],
            train_loss: Some(0.1 + 0.2),
            metrics: [("norm".to_string(), 0.1 + 0.2)].into(),
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
            stored: None,
            asked: Mutex::default(),
            peers: Mutex::default(),
            reports: Mutex::default(),
            digests: Mutex::default(),
            submitted: Mutex::default(),
            refuse_reports: None,
            uploading: AtomicUsize::new(0),
            tasks: Semaphore::new(0),
            workers: Mutex::default(),
            pages: AtomicUsize::new(0),
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
            | Request::Rotate { credentials }
            | Request::Poll { credentials, .. }
            | Request::Job { credentials, .. }
            | Request::Partition { credentials, .. }
            | Request::Model { credentials, .. }
            | Request::Report { credentials, .. }
            | Request::UploadOffset { credentials, .. }
            | Request::TaskFailed { credentials, .. }
            | Request::Evaluation { credentials, .. } => Some(credentials),
        };
        credentials.map_or(Ok(()), |credentials| self.check(credentials))?;
        Ok(match request {
            Request::Register { join_token, .. } => {
                self.admit(join_token.as_ref())?;
                Response::Registered(Registered {
                    coordinator: CoordinatorId("fake".to_string()),
                    protocol: crate::protocol::PROTOCOL,
                    worker: WorkerId(1),
                    token: Token("token-1".to_string()),
                    heartbeat_ms: 5,
                    poll_ms: 6,
                })
            }
            Request::Heartbeat { busy, .. } => Response::Alive { unwanted: busy },
            Request::Rotate { credentials } => {
                Response::Rotated(Token(format!("{}-new", credentials.token.0)))
            }
            Request::Poll { wait, .. } if wait.is_zero() => Response::Idle,
            Request::Poll { .. } => {
                self.tasks.acquire().await.unwrap().forget();
                Response::Task(task())
            }
            Request::Job { job, .. } => Response::Job(JobMessage {
                job,
                spec: JobSpec::default().description(),
                frozen: false,
                states_of: None,
            }),
            Request::Partition { client, .. } => Response::Partition(DatasetPartition {
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
            Request::UploadOffset { .. } => Response::UploadOffset(0),
            Request::Leave { .. } | Request::TaskFailed { .. } | Request::Evaluation { .. } => {
                Response::Accepted
            }
        })
    }

    fn body(&self) -> Arc<dyn StoredBody> {
        match &self.stored {
            Some(stored) => stored.clone(),
            None => MemoryBody::new(Encoded::plain(self.model.clone())),
        }
    }

    async fn take(&self, body: ReportBody) -> Result<Parameters, Refusal> {
        let (mut bytes, digest) = match body {
            ReportBody::Memory(payloads) => {
                let delta = payloads.find(DELTA).unwrap();
                return Ok((*delta.decode().unwrap()).clone());
            }
            ReportBody::Stream { bytes, digest, .. } => (bytes, digest),
            ReportBody::Rest { bytes, digest, .. } => (bytes, Some(digest)),
        };
        self.digests.lock().unwrap().push(digest);
        let refuse = |kind| move |text: String| Refusal::new(kind, text);
        let truncated = refuse(RefusalKind::Truncated);
        let malformed = refuse(RefusalKind::Malformed);
        let form = Form::new(Encoding::F32, self.model.layout().clone(), Roles::TRAINED);
        let mut decoder = BodyDecoder::new(Arc::new(BodyForm::one(DELTA, form)));
        let mut sink = MemorySink::default();
        while let Some(piece) = bytes.try_next().await.map_err(|error| match error {
            BodyError::TooLarge { .. } => Refusal::new(RefusalKind::TooLarge, error.to_string()),
            error => truncated(error.to_string()),
        })? {
            decoder
                .push(&piece, &mut sink)
                .map_err(|error| malformed(error.to_string()))?;
        }
        let form = decoder.finish(digest);
        let form = form.map_err(|error| malformed(error.to_string()))?;
        Ok(sink.into_parameters(form).unwrap())
    }

    pub fn summary(&self, job: JobId, spec: JobSpec) -> JobSummary {
        JobSummary {
            continued: None,
            best: None,
            last_measured: None,
            initial_digest: None,
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
            last_event: 0,
            submitted: Timestamp(5),
            ended: None,
        }
    }
}

impl Handler for Fake {
    fn handle(&self, peer: Peer, request: Request) -> BoxFuture<'_, Response> {
        self.asked.lock().unwrap().push(format!("{request:?}"));
        self.peers.lock().unwrap().push(peer);
        Box::pin(async { self.answer(request).await.unwrap_or_else(Response::Refused) })
    }

    fn check_requester<'a>(
        &'a self,
        _peer: Peer,
        requester: &'a Requester,
    ) -> BoxFuture<'a, Result<(), Refusal>> {
        let checked = match requester {
            Requester::NewWorker { join_token } => self.admit(join_token.as_ref()),
            Requester::Worker(credentials) => self.check(credentials),
        };
        Box::pin(std::future::ready(checked))
    }
}

fn known(job: JobId) -> Result<(), Refusal> {
    match job.0 {
        1 => Ok(()),
        _ => Err(Refusal::new(RefusalKind::UnknownJob, format!("job {job}"))),
    }
}

/// What it answers to operators.
impl Fake {
    fn admit(&self, token: Option<&Token>) -> Result<(), Refusal> {
        match (&self.join_token, token) {
            (None, _) => Ok(()),
            (Some(join), Some(token)) if join.matches(token) => Ok(()),
            _ => Err(Refusal::new(RefusalKind::Unauthorized, "no join token")),
        }
    }

    fn queue(
        &self,
        spec: JobSpec,
        initial: Option<Arc<Parameters>>,
    ) -> Result<JobSummary, Refusal> {
        self.submitted.lock().unwrap().push((spec.clone(), initial));
        Ok(self.summary(JobId(1), spec))
    }

    pub fn job_list(&self) -> Vec<JobSummary> {
        vec![self.summary(JobId(1), JobSpec::default())]
    }

    pub fn one(&self, job: JobId) -> Result<JobSummary, Refusal> {
        known(job)?;
        Ok(self.summary(job, JobSpec::default()))
    }

    pub fn records(&self, job: JobId) -> Result<Vec<RoundRecord>, Refusal> {
        known(job)?;
        let mut record = RoundRecord::committed(RoundId(1), ModelVersion(1));
        record.test_loss = Some(0.5);
        record.train_loss = Some(1.25);
        record.seconds = 0.125;
        record.bytes = 77;
        record.accepted = vec![ClientId(0), ClientId(3)];
        record.folded = vec![ClientId(0)];
        record.excluded = vec![Excluded {
            client: ClientId(3),
            reason: "too far".to_string(),
        }];
        record.metrics.insert("norm".to_string(), 0.1 + 0.2);
        record.state_lost = vec![ClientId(0)];
        let metadata = ReportMetadata {
            examples: 12,
            metrics: [("train_loss".to_string(), 1.25)].into(),
            ..ReportMetadata::default()
        };
        let said = [(ClientId(0), &metadata)];
        let measured = ClientMetrics::new(said, ClientMetricsLimit::default());
        let record = measured.add_to(record);
        Ok(vec![record.with_contributions(vec![Contribution {
            worker: WorkerId(7),
            name: "lab".to_string(),
            device: Some("libtorch:cuda:0".to_string()),
            clients: vec![ClientId(0)],
            examples: 12,
            seconds: Some(0.1 + 0.2),
            energy_joules: Some(4.5),
        }])])
    }

    fn end(&self, job: JobId) -> Result<JobSummary, Refusal> {
        known(job)?;
        Err(Refusal::new(RefusalKind::Conflict, "it has ended"))
    }

    fn follow(&self, job: JobId, after: u64) -> Result<Events, Refusal> {
        known(job)?;
        let past = events()
            .into_iter()
            .filter(move |event| event.sequence > after);
        // After the last event, 100: a stream without an end.
        let more = match after {
            100 => stream::pending().left_stream(),
            _ => stream::empty().right_stream(),
        };
        Ok(Box::pin(stream::iter(past).map(Ok).chain(more)))
    }

    fn find(
        &self,
        job: JobId,
        version: Option<ModelVersion>,
    ) -> Result<(ModelVersion, ModelBody), Refusal> {
        known(job)?;
        let version = version.unwrap_or(ModelVersion(3));
        match version.0 {
            3 => Ok((version, ModelBody::Stored(self.body()))),
            _ => Err(Refusal::new(RefusalKind::Gone, "not kept")),
        }
    }

    pub fn state(&self) -> Health {
        Health {
            coordinator: CoordinatorId("fake".to_string()),
            version: "0.1.0".to_string(),
            protocol: 1,
            workers: 2,
            running: Vec::new(),
            queued: 0,
            journal: None,
        }
    }
}

fn now<'a, T: Send + 'a>(answer: Result<T, Refusal>) -> Answer<'a, T> {
    Box::pin(std::future::ready(answer.map_err(OperatorError::Refused)))
}

/// The first entries, at most [`PAGE`] of them whatever is asked for.
fn page_of<T, N>(mut entries: Vec<T>, limit: usize, number: impl Fn(&T) -> N) -> Page<T, N> {
    let limit = limit.min(PAGE);
    let has_more = entries.len() > limit;
    entries.truncate(limit);
    let last = entries.last().map(number);
    Page::new(entries, last.filter(|_| has_more))
}

impl Operator for Fake {
    fn own_access<'a>(&'a self, caller: &'a Caller) -> Answer<'a, OwnAccess> {
        let admitted = self.admit(caller.token.as_ref());
        let access = admitted.map(|()| OwnAccess::new("ann", Scope::Admin));
        Box::pin(std::future::ready(access.map_err(OperatorError::Refused)))
    }

    fn authorize<'a>(&'a self, caller: &'a Caller, _: Scope) -> Answer<'a, ()> {
        now(self.admit(caller.token.as_ref()))
    }

    fn submit_once<'a>(
        &'a self,
        caller: &'a Caller,
        submission: Submission,
    ) -> Answer<'a, JobSummary> {
        let admitted = self.admit(caller.token.as_ref());
        now(admitted.and_then(|()| self.queue(submission.spec, submission.initial)))
    }

    fn jobs_page<'a>(
        &'a self,
        caller: &'a Caller,
        after: JobId,
        limit: usize,
    ) -> Answer<'a, Page<JobSummary, JobId>> {
        let admitted = self.admit(caller.token.as_ref());
        now(admitted.map(|()| {
            let mut jobs = self.job_list();
            jobs.retain(|summary| summary.job > after);
            page_of(jobs, limit, |summary| summary.job)
        }))
    }

    fn job<'a>(&'a self, caller: &'a Caller, job: JobId) -> Answer<'a, JobSummary> {
        let admitted = self.admit(caller.token.as_ref());
        now(admitted.and_then(|()| self.one(job)))
    }

    fn rounds_page<'a>(
        &'a self,
        caller: &'a Caller,
        job: JobId,
        after: RoundId,
        limit: usize,
    ) -> Answer<'a, Page<RoundRecord, RoundId>> {
        let admitted = self.admit(caller.token.as_ref());
        now(admitted.and_then(|()| {
            let mut records = self.records(job)?;
            records.retain(|record| record.round > after);
            Ok(page_of(records, limit, |record| record.round))
        }))
    }

    fn cancel<'a>(&'a self, caller: &'a Caller, job: JobId) -> Answer<'a, JobSummary> {
        let admitted = self.admit(caller.token.as_ref());
        now(admitted.and_then(|()| self.end(job)))
    }

    fn pause<'a>(
        &'a self,
        caller: &'a Caller,
        job: JobId,
        _paused: bool,
    ) -> Answer<'a, JobSummary> {
        let admitted = self.admit(caller.token.as_ref());
        now(admitted.and_then(|()| self.end(job)))
    }

    fn delete<'a>(&'a self, caller: &'a Caller, job: JobId) -> Answer<'a, JobSummary> {
        let admitted = self.admit(caller.token.as_ref());
        now(admitted.and_then(|()| self.end(job)))
    }

    fn events<'a>(&'a self, caller: &'a Caller, job: JobId, after: u64) -> Answer<'a, Events> {
        let admitted = self.admit(caller.token.as_ref());
        now(admitted.and_then(|()| self.follow(job, after)))
    }

    fn workers_page<'a>(
        &'a self,
        caller: &'a Caller,
        after: WorkerId,
        limit: usize,
    ) -> Answer<'a, Page<WorkerSummary, WorkerId>> {
        let admitted = self.admit(caller.token.as_ref());
        now(admitted.map(|()| {
            let mut workers = self.workers.lock().unwrap().clone();
            self.pages.fetch_add(1, Ordering::SeqCst);
            workers.retain(|summary| summary.worker > after);
            page_of(workers, limit, |summary| summary.worker)
        }))
    }

    fn model_body<'a>(
        &'a self,
        caller: &'a Caller,
        job: JobId,
        version: Option<ModelVersion>,
    ) -> Answer<'a, (ModelVersion, ModelBody)> {
        let admitted = self.admit(caller.token.as_ref());
        now(admitted.and_then(|()| self.find(job, version)))
    }

    fn health<'a>(&'a self) -> Answer<'a, Health> {
        now(Ok(self.state()))
    }
}
