//! What every [`Transport`] must keep, for this crate's own and for a third party's.
//!
//! Call [`carries_everything`] from a test, with a function that serves the handler that it is given and returns a transport to
//! it. A broken promise panics with its name.

use std::{
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, future::BoxFuture, stream};
use tokio::{sync::Notify, time::timeout};

use super::{
    Credentials, Handler, ModelBody, Peer, ReportBody, Request, Response, Transport,
    TransportError, stored_bytes,
};
use crate::{
    ids::{ClientId, CoordinatorId, JobId, ModelVersion, RoundId, WorkerId},
    job::{EvalSplit, JobSpec, TrainingSettings},
    parameters::{
        Digest, Encoded, Encoding, Form, Layout, MemoryBody, Parameters, Payloads, Role, Roles,
        StoredBody, encode,
    },
    protocol::{
        DatasetInfo, DatasetPartition, FROZEN, JobMessage, PROTOCOL, Registered, Registration,
        TaskMessage, TaskWork, Token,
    },
    report::{Refusal, RefusalKind, ReportMetadata},
    round::Evaluation,
};

/// No step of the suite waits longer.
const LIMIT: Duration = Duration::from_secs(60);
/// Values of the models and reports that are carried: more than fits the buffers of a connection.
const VALUES: usize = 1_000_000;

/// Asserts the whole contract of a transport: what a worker asks arrives as it was sent, what is answered comes back as it was
/// answered, and no request waits for another.
///
/// `connect` serves a handler, and returns a transport to it. It is called once.
///
/// # Panics
///
/// If the contract is broken.
pub async fn carries_everything<T: Transport>(connect: impl AsyncFnOnce(Arc<dyn Handler>) -> T) {
    let script = Arc::new(Script::default());
    let transport = connect(script.clone()).await;
    requests_and_answers(&script, &transport).await;
    refusals(&script, &transport).await;
    models(&script, &transport).await;
    reports(&script, &transport).await;
    a_refusal_before_the_end_of_a_report(&script, &transport).await;
    requests_beside_each_other(&script, &transport).await;
}

/// A handler that says what the test tells it to, and notes what it was asked.
#[derive(Default)]
struct Script {
    /// What to answer next, and whether to read the report before.
    answer: Mutex<Option<(Response, bool)>>,
    asked: Mutex<Option<String>>,
    report: Mutex<Option<Vec<u8>>>,
    /// A poll with this wait is answered when somebody calls.
    called: Notify,
    polled: Notify,
}

/// The wait of the poll that waits to be called.
const TO_BE_CALLED: Duration = Duration::from_millis(12_345);

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Handler for Script {
    fn handle(&self, _: Peer, request: Request) -> BoxFuture<'_, Response> {
        Box::pin(async move {
            if matches!(&request, Request::Poll { wait, .. } if *wait == TO_BE_CALLED) {
                self.polled.notify_one();
                self.called.notified().await;
                return Response::Idle;
            }
            *locked(&self.asked) = Some(format!("{request:?}"));
            let answer = locked(&self.answer).take();
            let (answer, reads) = answer.expect("a request that the suite did not send");
            if let (Request::Report { body, .. }, true) = (request, reads) {
                let bytes = bytes_of_report(body).await;
                *locked(&self.report) = Some(bytes);
            }
            answer
        })
    }
}

impl Script {
    /// Sends a request, of which the handler reads the report if it `reads`, and which it answers so.
    async fn exchange(
        &self,
        transport: &impl Transport,
        request: Request,
        answer: Response,
        reads: bool,
    ) -> Response {
        *locked(&self.answer) = Some((answer, reads));
        let what = format!("{request:?}");
        let sent = timeout(LIMIT, transport.send(request)).await;
        let sent = sent.unwrap_or_else(|_| panic!("no answer within {LIMIT:?} to {what}"));
        sent.unwrap_or_else(|error| panic!("{error}: the answer to {what}"))
    }

    fn asked(&self) -> String {
        locked(&self.asked).take().expect("a request that arrived")
    }
}

fn credentials() -> Credentials {
    Credentials {
        worker: WorkerId(7),
        token: Token("a-token_~.with+marks/0=".to_string()),
    }
}

fn task() -> TaskMessage {
    TaskMessage {
        job: JobId(3),
        round: RoundId(5),
        client: ClientId(2),
        version: ModelVersion(4),
        work: TaskWork::Train {
            training: TrainingSettings::default(),
            remaining_ms: 1234,
            generation: 1,
            basis: Some(RoundId(3)),
            sends: vec!["control".to_string()],
            expects: Vec::new(),
            objective: Default::default(),
        },
        running: vec![JobId(3), JobId(4)],
        kept: vec![JobId(2)],
    }
}

fn evaluation_task() -> TaskMessage {
    TaskMessage {
        work: TaskWork::Evaluate {
            share: 1,
            shares: 3,
            split: EvalSplit::Validation,
            basis: Some(RoundId(2)),
        },
        ..task()
    }
}

fn layout() -> Arc<Layout> {
    let tensors = [
        ("größe.bias".to_string(), vec![3], Role::Trainable),
        ("größe.weight".to_string(), vec![VALUES], Role::Trainable),
    ];
    Layout::new(tensors).expect("a layout")
}

fn values() -> Arc<Parameters> {
    let layout = layout();
    let mut parameters = Parameters::zeros(layout);
    for (index, value) in parameters.values_mut().iter_mut().enumerate() {
        *value = (index % 1009) as f32 / 64.0 - 7.0;
    }
    Arc::new(parameters)
}

fn metadata() -> ReportMetadata {
    let mut metadata = ReportMetadata::new(ModelVersion(4), 17);
    metadata.metrics.insert("größe".to_string(), 0.1 + 0.2);
    metadata.device = Some("größer".to_string());
    metadata.seconds = Some(1e-300);
    metadata
}

/// Every kind of request with what it is answered, but for models and reports.
fn exchanges() -> Vec<(Request, Response)> {
    let (job, round, client) = (JobId(3), RoundId(5), ClientId(2));
    let mut registration = Registration::new("größe \u{1F600}");
    let info = DatasetInfo::new("digits", "abc", 10, 5);
    registration.datasets.push(info);
    registration
        .capabilities
        .push("payload:control".to_string());
    let registered = Registered {
        coordinator: CoordinatorId("5f0c".to_string()),
        worker: WorkerId(7),
        protocol: PROTOCOL,
        token: credentials().token,
        heartbeat_ms: 10_000,
        poll_ms: 30_000,
    };
    let share = DatasetPartition {
        dataset: "digits".to_string(),
        fingerprint: "abc".to_string(),
        indices: Some((0..10_000).collect()),
    };
    let mut spec = JobSpec::new("modèle", "digits");
    spec.settings.insert("größe".to_string(), 0.1.into());
    let described = JobMessage {
        job,
        spec: spec.description(),
        frozen: true,
        states_of: Some(JobId(2)),
    };
    let evaluation = Evaluation::new(0.1 + 0.2, 9).with_metric("größe", 1e-300);
    vec![
        (
            Request::Register {
                join_token: Some(credentials().token),
                registration: registration.clone(),
            },
            Response::Registered(registered.clone()),
        ),
        (
            Request::Register {
                join_token: None,
                registration,
            },
            Response::Registered(registered),
        ),
        (
            Request::Heartbeat {
                credentials: credentials(),
                busy: vec![task(), evaluation_task()],
            },
            Response::Alive {
                unwanted: vec![task()],
            },
        ),
        (poll(Duration::from_millis(1500)), Response::Task(task())),
        (poll(Duration::ZERO), Response::Task(evaluation_task())),
        (poll(Duration::from_secs(1)), Response::Idle),
        (
            Request::Job {
                credentials: credentials(),
                job,
            },
            Response::Job(described),
        ),
        (
            Request::Partition {
                credentials: credentials(),
                job,
                client,
            },
            Response::Partition(share),
        ),
        (
            Request::TaskFailed {
                credentials: credentials(),
                job,
                round,
                client,
                reason: "größe\nin two lines".to_string(),
            },
            Response::Accepted,
        ),
        (evaluated(job, client, Ok(evaluation)), Response::Accepted),
        (
            evaluated(job, client, Err("no data".to_string())),
            Response::Accepted,
        ),
        (
            Request::Leave {
                credentials: credentials(),
            },
            Response::Accepted,
        ),
    ]
}

fn assert_same(found: &impl Debug, expected: &str, what: &str) {
    let found = format!("{found:?}");
    assert!(found == expected, "{what}: {found}\ninstead of: {expected}");
}

async fn requests_and_answers(script: &Script, transport: &impl Transport) {
    for (request, answer) in exchanges() {
        let (sent, answered) = (format!("{request:?}"), format!("{answer:?}"));
        let came = script.exchange(transport, request, answer, true).await;
        let asked = script.asked();
        assert!(asked == sent, "arrived: {asked}\ninstead of: {sent}");
        assert_same(&came, &answered, "the answer");
    }
}

async fn refusals(script: &Script, transport: &impl Transport) {
    for kind in RefusalKind::ALL {
        let refusal = Refusal::new(*kind, "größe: \"why\"");
        let answer = Response::Refused(refusal.clone());
        let request = Request::Job {
            credentials: credentials(),
            job: JobId(3),
        };
        match script.exchange(transport, request, answer, true).await {
            Response::Refused(found) => assert_eq!(found, refusal, "a refusal is an answer"),
            other => panic!("{other:?} instead of the refusal {refusal}"),
        }
    }
}

fn ask_for_model(payload: Option<&str>) -> Request {
    Request::Model {
        credentials: credentials(),
        job: JobId(3),
        version: ModelVersion(4),
        payload: payload.map(str::to_string),
    }
}

async fn models(script: &Script, transport: &impl Transport) {
    let whole = Form::new(Encoding::F32, layout(), Roles::ALL);
    let model = encode(&whole, &values()).expect("a model");
    let stored: Arc<dyn StoredBody> = MemoryBody::new(model);
    let length = stored.length();
    let file = collect(stored_bytes(stored.clone(), 0..length)).await;
    for payload in [None, Some(FROZEN), Some("control")] {
        for is_stream in [false, true] {
            let body = if is_stream {
                ModelBody::Stream {
                    bytes: stored_bytes(stored.clone(), 0..length),
                    length: Some(length),
                    digest: Some(stored.digest()),
                }
            } else {
                ModelBody::Stored(stored.clone())
            };
            let request = ask_for_model(payload);
            let sent = format!("{request:?}");
            let answer = script.exchange(transport, request, Response::Model(body), true);
            let Response::Model(found) = answer.await else {
                panic!("no model for {sent}");
            };
            let asked = script.asked();
            assert!(asked == sent, "arrived: {asked}\ninstead of: {sent}");
            let found = collect(found.checked_bytes()).await;
            assert!(found == file, "a model comes with other bytes: {sent}");
        }
    }
}

fn report(body: ReportBody) -> Request {
    Request::Report {
        credentials: credentials(),
        job: JobId(3),
        round: RoundId(5),
        client: ClientId(2),
        metadata: metadata(),
        body,
    }
}

fn poll(wait: Duration) -> Request {
    Request::Poll {
        credentials: credentials(),
        busy: vec![task()],
        wait,
    }
}

fn evaluated(job: JobId, client: ClientId, evaluation: Result<Evaluation, String>) -> Request {
    Request::Evaluation {
        credentials: credentials(),
        job,
        version: ModelVersion(4),
        split: EvalSplit::Validation,
        client,
        evaluation,
    }
}

fn encoded(encoding: Encoding) -> Encoded {
    encode(&Form::new(encoding, layout(), Roles::TRAINED), &values()).expect("a payload")
}

fn payloads() -> Payloads {
    Payloads::new(vec![
        ("delta".to_string(), encoded(Encoding::Int8)),
        ("control".to_string(), encoded(Encoding::F32)),
    ])
}

/// The body of a report as it is on a wire.
fn wire(payloads: &Payloads) -> Vec<u8> {
    payloads.pieces().concat()
}

async fn reports(script: &Script, transport: &impl Transport) {
    let payloads = payloads();
    let bytes = wire(&payloads);
    for is_stream in [false, true] {
        let body = if is_stream {
            ReportBody::Stream {
                bytes: Box::pin(stream::iter(payloads.pieces().into_iter().map(Ok))),
                length: Some(bytes.len() as u64),
                digest: Some(Digest::of(&bytes)),
            }
        } else {
            ReportBody::Memory(payloads.clone())
        };
        let answer = script.exchange(transport, report(body), Response::Accepted, true);
        assert_same(&answer.await, "Accepted", "the answer to a report");
        let asked = script.asked();
        let said = format!("{:?}", metadata());
        assert!(asked.contains(&said), "a report's metadata: {asked}");
        let found = locked(&script.report).take();
        assert!(found.as_ref() == Some(&bytes), "a report's bytes differ");
    }
}

async fn a_refusal_before_the_end_of_a_report(script: &Script, transport: &impl Transport) {
    let refusal = Refusal::new(RefusalKind::Late, "the round has ended");
    let body = ReportBody::Memory(payloads());
    let answer = Response::Refused(refusal.clone());
    match script
        .exchange(transport, report(body), answer, false)
        .await
    {
        Response::Refused(found) => assert_eq!(found, refusal),
        other => panic!("{other:?} instead of the refusal of a report that nobody reads"),
    }
}

async fn requests_beside_each_other(script: &Script, transport: &impl Transport) {
    let poll = transport.send(Request::Poll {
        credentials: credentials(),
        busy: Vec::new(),
        wait: TO_BE_CALLED,
    });
    let others = async {
        script.polled.notified().await;
        for (request, answer) in exchanges() {
            script.exchange(transport, request, answer, true).await;
        }
        script.called.notify_one();
    };
    let both = async { tokio::join!(poll, others).0 };
    let polled: Result<Result<Response, TransportError>, _> = timeout(LIMIT, both).await;
    let polled = polled.expect("other requests while a poll waits");
    let polled = polled.expect("an answer to the poll");
    assert_same(&polled, "Idle", "the answer to a poll that waited");
}

async fn collect(mut stream: super::ByteStream) -> Vec<u8> {
    let mut found = Vec::new();
    while let Some(piece) = stream.next().await {
        let piece: Bytes = piece.unwrap_or_else(|error| panic!("a body broke off: {error}"));
        found.extend_from_slice(&piece);
    }
    found
}

async fn bytes_of_report(body: ReportBody) -> Vec<u8> {
    match body {
        ReportBody::Memory(payloads) => wire(&payloads),
        ReportBody::Stream { bytes, .. } | ReportBody::Rest { bytes, .. } => collect(bytes).await,
    }
}
