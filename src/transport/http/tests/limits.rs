//! Many at once, and the end.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use futures_util::{StreamExt, future::join_all, stream};

use super::{
    HERE, Limits, Running, credentials,
    fake::{Fake, parameters},
};
use crate::{
    ids::{ClientId, JobId, ModelVersion, RoundId},
    parameters::{Encoded, Payloads},
    report::ReportMetadata,
    transport::{
        Operator, ReportBody, Request, Response, Transport,
        http::{BindError, ClientConfig, listen},
    },
};

fn poll() -> Request {
    Request::Poll {
        credentials: credentials(1),
        busy: Vec::new(),
        wait: Duration::from_secs(60),
    }
}

fn report(body: ReportBody) -> Request {
    Request::Report {
        credentials: credentials(1),
        job: JobId(1),
        round: RoundId(4),
        client: ClientId(0),
        metadata: ReportMetadata {
            base_version: ModelVersion(3),
            examples: 1,
            steps: 1,
            metrics: Default::default(),
            ..ReportMetadata::default()
        },
        body,
    }
}

/// A report that stops after its first bytes.
fn half_a_report(length: Option<u64>) -> Request {
    let first = stream::iter([Ok(vec![8].into())]);
    report(ReportBody::Stream {
        bytes: Box::pin(first.chain(stream::pending())),
        length,
        digest: None,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polls_that_wait_hold_nothing_up() {
    let limits = Limits::with(|limits| {
        limits.router.callers.worker_uploads = 100;
    });
    let running = Running::start(Fake::open(), limits).await;
    let worker = running.worker();
    let polls: Vec<_> = (0..200)
        .map(|_| {
            let worker = worker.clone();
            tokio::spawn(async move { worker.send(poll()).await.unwrap() })
        })
        .collect();
    let delta = |seed| {
        ReportBody::Memory(Payloads::delta(Encoded::plain(Arc::new(parameters(
            1000, seed,
        )))))
    };
    let accepted = join_all((0..100).map(|seed| worker.send(report(delta(seed))))).await;
    assert!(
        accepted
            .iter()
            .all(|answer| matches!(answer, Ok(Response::Accepted)))
    );
    let mut found: Vec<_> = running
        .fake
        .reports
        .lock()
        .unwrap()
        .iter()
        .map(|report| report.values()[0].to_bits())
        .collect();
    found.sort();
    assert_eq!(found, (0..100).collect::<Vec<u32>>());
    running.fake.tasks.add_permits(200);
    for response in join_all(polls).await {
        assert!(matches!(response.unwrap(), Response::Task(_)));
    }
}

#[tokio::test]
async fn more_connections_than_allowed_wait_for_their_turn() {
    let config = Limits::with(|limits| {
        limits.server.max_connections = 2;
    });
    let running = Running::start(Fake::open(), config).await;
    // Each client has a connection of its own, and gives it back at the end.
    let ask = |_| {
        let operator = running.operator(None);
        async move { operator.health().await.is_ok() }
    };
    assert!(
        join_all((0..20).map(ask))
            .await
            .into_iter()
            .all(|answered| answered)
    );
}

#[tokio::test]
async fn a_poll_that_is_given_up_ends_at_the_coordinator_too() {
    let running = Running::open().await;
    let worker = running.worker();
    let waiting = tokio::time::timeout(Duration::from_millis(30), worker.send(poll())).await;
    assert!(waiting.is_err());
    // The one permit must go to the second poll: the first may not take it along.
    while running.fake.asked.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let second = tokio::spawn({
        let worker = running.worker();
        async move { worker.send(poll()).await.unwrap() }
    });
    while running.fake.asked.lock().unwrap().len() < 2 {
        tokio::task::yield_now().await;
    }
    running.fake.tasks.add_permits(1);
    assert!(matches!(second.await.unwrap(), Response::Task(_)));
}

#[tokio::test]
async fn an_upload_whose_sender_is_gone_is_broken_off() {
    let running = Running::open().await;
    for length in [None, Some(1000)] {
        let upload = running.worker_with(ClientConfig::default());
        let upload = tokio::spawn(async move { upload.send(half_a_report(length)).await });
        while running.fake.uploading.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        upload.abort();
        while running.fake.uploading.load(Ordering::SeqCst) > 0 {
            tokio::task::yield_now().await;
        }
    }
    assert!(running.fake.reports.lock().unwrap().is_empty());
}

#[tokio::test]
async fn stopping_answers_polls_ends_events_and_cuts_off_the_rest() {
    let config = Limits::with(|limits| {
        limits.server.drain_timeout = Duration::from_millis(100);
    });
    let running = Running::start(Fake::open(), config).await;
    let worker = running.worker();
    let polling = tokio::spawn({
        let worker = worker.clone();
        async move { worker.send(poll()).await }
    });
    let events = running
        .operator(None)
        .events(&HERE, JobId(1), 100)
        .await
        .unwrap();
    let uploading = tokio::spawn({
        let worker = running.worker_with(ClientConfig::default());
        async move { worker.send(half_a_report(None)).await }
    });
    while running.fake.asked.lock().unwrap().len() < 2
        || running.fake.uploading.load(Ordering::SeqCst) == 0
    {
        tokio::task::yield_now().await;
    }
    running.stop.send(()).unwrap();
    running.ended.await.unwrap();
    assert!(matches!(polling.await.unwrap(), Ok(Response::Idle)));
    assert_eq!(events.count().await, 0);
    assert!(uploading.await.unwrap().unwrap_err().is_transient());
}

#[tokio::test]
async fn an_open_coordinator_listens_on_loopback_alone() {
    let everywhere = "0.0.0.0:0".parse().unwrap();
    let refused = listen(everywhere, true).await;
    assert!(matches!(refused.err(), Some(BindError::Open(_))));
    assert!(listen(everywhere, false).await.is_ok());
}
