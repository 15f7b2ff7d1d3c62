//! Digests of bodies, right ones and wrong ones, in both directions.

use std::sync::Arc;

use super::{
    HERE, Limits, Running, credentials,
    fake::{Fake, OnDisk, parameters},
};
use crate::{
    ids::{ClientId, JobId, ModelVersion, RoundId},
    job::JobSpec,
    parameters::{Digest, Encoded, Encoding, Payloads, safetensors},
    report::{RefusalKind, ReportMetadata},
    transport::{BodyError, Operator, OperatorError, ReportBody, Request, Response, Transport},
};

const WRONG: &str = "crc32=01234567";

fn report(body: ReportBody) -> Request {
    Request::Report {
        credentials: credentials(1),
        job: JobId(1),
        round: RoundId(4),
        client: ClientId(2),
        metadata: ReportMetadata {
            base_version: ModelVersion(3),
            examples: 10,
            steps: 4,
            metrics: Default::default(),
            ..ReportMetadata::default()
        },
        body,
    }
}

fn stream(bytes: &[u8], digest: Option<Digest>) -> ReportBody {
    let pieces = [Ok(bytes.to_vec().into())];
    ReportBody::Stream {
        bytes: Box::pin(futures_util::stream::iter(pieces)),
        length: Some(bytes.len() as u64),
        digest,
    }
}

#[tokio::test]
async fn a_report_says_its_digest_and_a_wrong_one_is_refused() {
    // One whose digest is taken at once, and one whose digest is taken elsewhere.
    for values in [1000, 500_000] {
        let delta = Arc::new(parameters(values, 3));
        let running = Running::start(Fake::with_model((*delta).clone()), Limits::default());
        let (running, delta) = (running.await, Encoded::plain(delta));
        let worker = running.worker();
        let bytes = delta.pieces("delta/").concat();
        let right = Some(Digest::of(&bytes));
        for (body, said) in [
            (ReportBody::Memory(Payloads::delta(delta)), right),
            (stream(&bytes, right), right),
            (stream(&bytes, None), None),
        ] {
            let response = worker.send(report(body)).await.unwrap();
            assert!(matches!(response, Response::Accepted), "{response:?}");
            assert_eq!(running.fake.digests.lock().unwrap().pop(), Some(said));
        }
        let wrong = stream(&bytes, WRONG.parse().ok());
        let Response::Refused(refusal) = worker.send(report(wrong)).await.unwrap() else {
            panic!("not refused");
        };
        assert_eq!(refusal.kind, RefusalKind::Malformed);
        let found = Digest::of(&bytes).to_string();
        assert!(refusal.detail.contains(&found), "{}", refusal.detail);
        assert!(refusal.detail.contains(WRONG), "{}", refusal.detail);
        assert_eq!(running.fake.reports.lock().unwrap().len(), 3);
    }
}

#[tokio::test]
async fn a_digest_that_is_none_is_malformed() {
    let running = Running::open().await;
    let bytes = Encoded::plain(running.fake.model.clone()).pieces("delta/");
    for value in ["crc32=123", "sha256=00", "12345678", ""] {
        let head = format!(
            "PUT /api/v1/jobs/1/rounds/4/reports/2 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             authorization: Bearer token-1\r\nfedavg-worker: 1\r\ncontent-length: {}\r\n\
             fedavg-report: {{\"base_version\":3,\"examples\":1,\"steps\":1}}\r\nfedavg-digest: {value}\r\n\r\n",
            bytes.concat().len()
        );
        let answer = running
            .raw([head.as_bytes(), &bytes.concat()].concat())
            .await;
        assert!(answer.starts_with("HTTP/1.1 422"), "{value}: {answer}");
        assert!(answer.contains("malformed"), "{answer}");
    }
    assert!(running.fake.reports.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_model_whose_digest_is_wrong_is_not_taken() {
    let model = parameters(1000, 3);
    let mut fake = Fake::with_model(model.clone());
    fake.stored = Some(Arc::new(OnDisk {
        digest: WRONG.parse().unwrap(),
        ..OnDisk::new(&model)
    }));
    let running = Running::start(fake, Limits::default()).await;
    let request = Request::Model {
        credentials: credentials(1),
        job: JobId(1),
        version: ModelVersion(3),
        payload: None,
    };
    let Response::Model(body) = running.worker().send(request).await.unwrap() else {
        panic!("not a model");
    };
    let error = body.collect(Encoding::F32, None).await.unwrap_err();
    assert!(matches!(error, BodyError::Malformed(_)), "{error:?}");

    let operator = running.operator(None);
    let error = operator
        .download(&HERE, JobId(1), None, &mut Vec::new())
        .await;
    let body = |error: &OperatorError| matches!(error, OperatorError::Body(BodyError::Malformed(cause)) if cause.to_string().contains(WRONG));
    assert!(error.as_ref().is_err_and(body), "{error:?}");
}

#[tokio::test]
async fn an_initial_model_says_its_digest_and_a_wrong_one_is_refused() {
    let running = Running::open().await;
    let initial = parameters(500_000, 3);
    let operator = running.operator(None);
    let spec = JobSpec::default();
    let submitted = operator
        .submit(&HERE, spec.clone(), Some(Arc::new(initial.clone())))
        .await;
    assert!(submitted.is_ok(), "{submitted:?}");
    let found = running.fake.submitted.lock().unwrap().pop().unwrap();
    assert!(found.1 == Some(Arc::new(initial)));

    let file = safetensors::encode(&parameters(10, 3));
    let head = format!(
        "POST /api/v1/jobs HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nfedavg-job: {{}}\r\n\
         content-type: application/octet-stream\r\ncontent-length: {}\r\nfedavg-digest: {WRONG}\r\n\r\n",
        file.len()
    );
    let answer = running.raw([head.as_bytes(), &file].concat()).await;
    assert!(answer.starts_with("HTTP/1.1 422"), "{answer}");
    assert!(running.fake.submitted.lock().unwrap().is_empty());
}
