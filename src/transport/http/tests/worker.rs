//! A worker's requests.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::StreamExt;

use super::{
    Limits, Running, credentials,
    fake::{Fake, parameters, task},
};
use crate::{
    ids::{ClientId, JobId, ModelVersion, RoundId},
    parameters::{BodyForm, Encoded, Encoding, Form, Payloads, Roles},
    protocol::{DatasetInfo, Hardware, PROTOCOL, Registration, Token},
    report::{Refusal, RefusalKind, ReportMetadata},
    round::Evaluation,
    settings::EvalSplit,
    transport::{
        Credentials, InProcess, ModelBody, ReportBody, Request, Response, Transport,
        TransportError,
        http::{ClientConfig, HttpTransport},
    },
};

fn report(credentials: Credentials, body: ReportBody) -> Request {
    Request::Report {
        credentials,
        job: JobId(1),
        round: RoundId(4),
        client: ClientId(2),
        metadata: ReportMetadata {
            state_lost: false,
            base_version: ModelVersion(3),
            examples: 10,
            steps: 4,
            metrics: BTreeMap::from([
                ("train_loss".to_string(), 0.1),
                ("größe".to_string(), -1e300),
            ]),
            device: Some("größer".to_string()),
            seconds: Some(0.1 + 0.2),
            energy_joules: Some(1e-300),
        },
        body,
    }
}

fn model(credentials: Credentials, version: u64) -> Request {
    Request::Model {
        credentials,
        job: JobId(1),
        version: ModelVersion(version),
        payload: None,
    }
}

/// Every kind of request, but for reports.
fn requests(credentials: &Credentials) -> Vec<Request> {
    let credentials = || credentials.clone();
    let (job, client) = (JobId(1), ClientId(2));
    let evaluation = Evaluation::new(0.25, 9)
        .with_accuracy(0.5)
        .with_metric("mae", 0.1 + 0.2);
    let evaluated = |evaluation| Request::Evaluation {
        credentials: credentials(),
        job,
        version: ModelVersion(u64::MAX),
        split: EvalSplit::Validation,
        client,
        evaluation,
    };
    vec![
        Request::Register {
            join_token: Some(Token("join".to_string())),
            registration: Registration {
                protocol: PROTOCOL,
                protocol_min: None,
                capabilities: Vec::new(),
                name: "naïve \"name\"".to_string(),
                slots: 3,
                hardware: Hardware::default(),
                device: "flex".to_string(),
                datasets: vec![DatasetInfo {
                    name: "digits".to_string(),
                    fingerprint: "abc".to_string(),
                    train_examples: 5,
                    test_examples: 6,
                }],
                encodings: vec!["f32".to_string(), "int8".to_string()],
                local: true,
            },
        },
        Request::Heartbeat {
            credentials: credentials(),
            busy: vec![task()],
        },
        Request::Poll {
            credentials: credentials(),
            busy: vec![task()],
            wait: Duration::ZERO,
        },
        Request::Poll {
            credentials: credentials(),
            busy: Vec::new(),
            wait: Duration::from_millis(1500),
        },
        Request::Job {
            credentials: credentials(),
            job,
        },
        Request::Partition {
            credentials: credentials(),
            job,
            client: ClientId(0),
        },
        Request::Partition {
            credentials: credentials(),
            job,
            client,
        },
        model(credentials(), 99),
        Request::TaskFailed {
            credentials: credentials(),
            job,
            round: RoundId(4),
            client,
            reason: "out of\nmemory".to_string(),
        },
        evaluated(Ok(evaluation)),
        evaluated(Err("no data".to_string())),
        Request::Leave {
            credentials: credentials(),
        },
    ]
}

#[tokio::test]
async fn http_and_in_process_show_both_sides_the_same_values() {
    let running = Running::open().await;
    running.fake.tasks.add_permits(2);
    let (http, here) = (running.worker(), InProcess::new(running.fake.clone()));
    for (over_http, within) in requests(&credentials(1))
        .into_iter()
        .zip(requests(&credentials(1)))
    {
        let sent = format!("{over_http:?}");
        let response = http.send(over_http).await.unwrap();
        assert_eq!(running.fake.asked.lock().unwrap().pop().unwrap(), sent);
        let expected = here.send(within).await.unwrap();
        assert_eq!(format!("{response:?}"), format!("{expected:?}"), "{sent}");
    }
}

#[tokio::test]
async fn models_and_reports_come_through_to_the_bit() {
    let parameters = Arc::new(parameters(3_000_000, 1));
    let fake = Fake::with_model((*parameters).clone());
    let running = Running::start(fake, Limits::default()).await;
    let worker = running.worker();

    let Response::Model(body) = worker.send(model(credentials(1), 3)).await.unwrap() else {
        panic!("not a model");
    };
    let ModelBody::Stream { length, .. } = &body else {
        panic!("not a stream");
    };
    assert!(length.is_some_and(|length| length > 12_000_000));
    let form = Form::new(Encoding::F32, parameters.layout().clone(), Roles::ALL);
    let form = Some(Arc::new(BodyForm::one("", form)));
    assert_eq!(body.collect(Encoding::F32, form).await.unwrap(), parameters);

    let memory = ReportBody::Memory(Payloads::delta(Encoded::plain(parameters.clone())));
    let response = worker.send(report(credentials(1), memory)).await.unwrap();
    assert!(matches!(response, Response::Accepted), "{response:?}");
    // The same as a stream in pieces of odd sizes, of unknown length and of known length.
    let bytes = Encoded::plain(parameters.clone()).pieces("delta/").concat();
    for length in [None, Some(bytes.len() as u64)] {
        let pieces: Vec<_> = bytes
            .chunks(99_991)
            .map(|piece| Ok(piece.to_vec().into()))
            .collect();
        let body = ReportBody::Stream {
            bytes: Box::pin(futures_util::stream::iter(pieces)),
            length,
            digest: None,
        };
        let response = worker.send(report(credentials(1), body)).await.unwrap();
        assert!(matches!(response, Response::Accepted), "{response:?}");
    }
    let reports = running.fake.reports.lock().unwrap();
    assert_eq!(reports.len(), 3);
    assert!(reports.iter().all(|report| report == &*parameters));
    let asked = running.fake.asked.lock().unwrap().pop().unwrap();
    assert!(asked.contains("\"größe\": -1e300"), "{asked}");
}

#[tokio::test]
async fn floats_come_through_to_the_bit() {
    let running = Running::open().await;
    // Numbers that a parser which is off by one unit in the last place gets wrong.
    let mut state = 88_172_645_463_325_252u64;
    for _ in 0..300 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let unit = (state >> 11) as f64 / (1u64 << 53) as f64;
        let evaluation = Evaluation::new(unit * 4.0, 1).with_accuracy(unit);
        let request = Request::Evaluation {
            credentials: credentials(1),
            job: JobId(1),
            version: ModelVersion(3),
            split: EvalSplit::Test,
            client: ClientId(2),
            evaluation: Ok(evaluation),
        };
        let sent = format!("{request:?}");
        running.worker().send(request).await.unwrap();
        assert_eq!(running.fake.asked.lock().unwrap().pop().unwrap(), sent);
    }
}

async fn refusal(transport: &HttpTransport, request: Request) -> Refusal {
    match transport.send(request).await.unwrap() {
        Response::Refused(refusal) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn each_worker_acts_for_itself_alone() {
    let running = Running::start(Fake::closed(), Limits::default()).await;
    let worker = running.worker();
    for stolen in requests(&Credentials {
        token: Token("token-2".to_string()),
        ..credentials(1)
    })
    .into_iter()
    .skip(1)
    {
        let sent = format!("{stolen:?}");
        let kind = refusal(&worker, stolen).await.kind;
        assert_eq!(kind, RefusalKind::Forbidden, "{sent}");
    }
    let unknown = Credentials {
        token: Token("token-9".to_string()),
        ..credentials(1)
    };
    let kind = refusal(&worker, model(unknown, 3)).await.kind;
    assert_eq!(kind, RefusalKind::Unauthorized);
}

#[tokio::test]
async fn a_report_that_is_refused_before_it_is_read_gets_its_refusal() {
    let expected = Refusal::new(RefusalKind::Late, "round 4 has closed");
    let mut fake = Fake::with_model(parameters(6_000_000, 1));
    fake.refuse_reports = Some(expected.clone());
    let running = Running::start(fake, Limits::default()).await;
    let worker = running.worker();
    for _ in 0..3 {
        let body = ReportBody::Memory(Payloads::delta(Encoded::plain(running.fake.model.clone())));
        let refused = refusal(&worker, report(credentials(1), body)).await;
        assert_eq!(refused, expected);
    }
}

#[tokio::test]
async fn an_upload_that_stalls_is_told_so() {
    let config = Limits::with(|limits| {
        limits.router.stall_timeout = Duration::from_millis(50);
        limits.server.stall_timeout = Duration::from_millis(50);
    });
    let running = Running::start(Fake::open(), config).await;
    let body = ReportBody::Stream {
        bytes: Box::pin(
            futures_util::stream::iter([Ok(vec![8, 0].into())])
                .chain(futures_util::stream::pending()),
        ),
        length: Some(4000),
        digest: None,
    };
    let refused = refusal(&running.worker(), report(credentials(1), body)).await;
    assert_eq!(refused.kind, RefusalKind::Truncated);
    assert!(
        refused.detail.contains("nothing came for 0.05 s"),
        "{}",
        refused.detail
    );
}

#[tokio::test]
async fn a_coordinator_that_does_not_answer_is_not_waited_for_for_ever() {
    let running = Running::open().await;
    let config = ClientConfig {
        answer_timeout: Duration::from_millis(50),
        ..ClientConfig::default()
    };
    let poll = Request::Poll {
        credentials: credentials(1),
        busy: Vec::new(),
        wait: Duration::from_millis(50),
    };
    let error = running.worker_with(config).send(poll).await.unwrap_err();
    assert!(matches!(error, TransportError::TimedOut(_)), "{error:?}");
}

#[tokio::test]
async fn nobody_there_is_a_transient_error() {
    let running = Running::open().await;
    let worker = running.worker();
    running.stop.send(()).unwrap();
    running.ended.await.unwrap();
    let error = worker.send(model(credentials(1), 3)).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
}

#[tokio::test]
async fn a_worker_can_ask_which_coordinator_it_is_before_it_registers() {
    let running = Running::open().await;
    let found = running.worker().coordinator().await.unwrap();
    assert_eq!(found, Some(running.fake.state().coordinator));
}
