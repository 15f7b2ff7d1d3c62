//! An operator's requests.

use std::sync::{Arc, atomic::Ordering};

use futures_util::TryStreamExt;

use super::{
    HERE, Limits, Running,
    fake::{Fake, PAGE, events, parameters},
};
use crate::{
    ids::{JobId, ModelVersion, RoundId, Timestamp, WorkerId},
    job::JobSpec,
    parameters::safetensors::{decode, encode},
    protocol::{Admission, WorkerSummary},
    report::RefusalKind,
    round::WorkerState,
    transport::{Operator, OperatorError},
};

const JOB: JobId = JobId(1);

fn kind<T>(result: Result<T, OperatorError>) -> RefusalKind {
    match result {
        Err(OperatorError::Refused(refusal)) => refusal.kind,
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("granted"),
    }
}

#[tokio::test]
async fn summaries_come_through() {
    let running = Running::open().await;
    let (operator, fake) = (running.operator(None), &running.fake);
    assert_eq!(operator.jobs(&HERE).await.unwrap(), fake.job_list());
    assert_eq!(
        operator.job(&HERE, JOB).await.unwrap(),
        fake.one(JOB).unwrap()
    );
    assert_eq!(
        operator.rounds(&HERE, JOB, RoundId(0)).await.unwrap(),
        fake.records(JOB).unwrap()
    );
    assert_eq!(operator.workers(&HERE).await.unwrap(), []);
    assert_eq!(operator.health().await.unwrap(), fake.state());
    assert_eq!(
        kind(operator.cancel(&HERE, JOB).await),
        RefusalKind::Conflict
    );
    assert_eq!(
        kind(operator.job(&HERE, JobId(2)).await),
        RefusalKind::UnknownJob
    );
    assert_eq!(
        kind(operator.rounds(&HERE, JobId(2), RoundId(0)).await),
        RefusalKind::UnknownJob
    );
    assert_eq!(
        kind(operator.events(&HERE, JobId(2), 0).await),
        RefusalKind::UnknownJob
    );
}

fn worker(number: u64) -> WorkerSummary {
    let registration = r#"{"protocol":2,"name":"lab","slots":1,"device":"flex"}"#;
    WorkerSummary {
        worker: WorkerId(number),
        registration: serde_json::from_str(registration).unwrap(),
        state: WorkerState::Live,
        registered: Timestamp(1),
        last_seen: Timestamp(2),
        clients: 0,
        examples_per_second: None,
        admission: Admission::Pending,
        held: Some("waits".to_string()),
        held_until: None,
        joined_by: "lab".to_string(),
        refused_reports: 3,
    }
}

#[tokio::test]
async fn a_list_is_read_page_by_page_and_sent_whole_to_who_knows_no_pages() {
    let running = Running::open().await;
    let (operator, fake) = (running.operator(None), &running.fake);
    let all: Vec<_> = (1..=8).map(|number| worker(10 * number)).collect();
    fake.workers.lock().unwrap().clone_from(&all);
    assert_eq!(operator.workers(&HERE).await.unwrap(), all);
    assert_eq!(fake.pages.swap(0, Ordering::SeqCst), 8_usize.div_ceil(PAGE));
    let page = operator.workers_page(&HERE, WorkerId(25), 2).await.unwrap();
    assert_eq!(
        (page.entries, page.next),
        (all[2..4].to_vec(), Some(WorkerId(40)))
    );

    let asked = async |query: &str| {
        let line = format!("GET /api/v1/workers{query} HTTP/1.0\r\nhost: localhost\r\n\r\n");
        let answer = running.raw(line).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_string(), body.to_string())
    };
    fake.pages.store(0, Ordering::SeqCst);
    for (query, expected) in [
        ("", &all[..]),
        ("?after=10", &all[1..]),
        ("?after=65", &all[6..]),
    ] {
        let (head, body) = asked(query).await;
        assert!(
            head.starts_with("HTTP/1.0 200") && !head.contains("\nlink:"),
            "{head}"
        );
        let found: Vec<WorkerSummary> = serde_json::from_str(&body).unwrap();
        assert_eq!(found, expected);
    }
    assert_eq!(fake.pages.swap(0, Ordering::SeqCst), 3 + 3 + 1);
    let (head, body) = asked("?after=10&limit=2").await;
    let link = "link: </api/v1/workers?after=30&limit=2>; rel=\"next\"";
    assert!(head.contains(link), "{head}");
    let found: Vec<WorkerSummary> = serde_json::from_str(&body).unwrap();
    assert_eq!(found, all[1..3]);
    let (head, _) = asked("?after=60&limit=2").await;
    assert!(!head.contains("\nlink:"), "{head}");
    for query in ["?limit=0", "?limit=-1", "?limit=x", "?after=x"] {
        let (head, _) = asked(query).await;
        assert!(head.starts_with("HTTP/1.0 400"), "{query}: {head}");
    }
}

#[tokio::test]
async fn a_job_is_submitted_with_a_model_and_without() {
    let running = Running::open().await;
    let operator = running.operator(None);
    let spec = JobSpec {
        model: "modèle".to_string(),
        rounds: 3,
        ..JobSpec::default()
    };
    let initial = Arc::new(parameters(500_000, 3));
    let summary = operator.submit(&HERE, spec.clone(), None).await.unwrap();
    assert_eq!(summary.spec, spec);
    operator
        .submit(&HERE, spec.clone(), Some(initial.clone()))
        .await
        .unwrap();
    let submitted = running.fake.submitted.lock().unwrap();
    assert_eq!(submitted[0], (spec.clone(), None));
    assert_eq!(submitted[1], (spec, Some(initial)));
}

#[tokio::test]
async fn events_come_in_order_from_where_one_wants() {
    let running = Running::open().await;
    let operator = running.operator(None);
    let all: Vec<_> = operator
        .events(&HERE, JOB, 0)
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    assert_eq!(all, events());
    let rest: Vec<_> = operator
        .events(&HERE, JOB, 2)
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    assert_eq!(rest, events()[2..]);
    let answer = running
        .raw("GET /api/v1/jobs/1/events HTTP/1.1\r\nhost: localhost\r\nlast-event-id: 2\r\nconnection: close\r\n\r\n")
        .await;
    assert!(
        answer.contains("content-type: text/event-stream"),
        "{answer}"
    );
    assert!(
        answer.contains("id: 3\n") && !answer.contains("id: 2\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_model_is_downloaded_as_the_file_that_it_is() {
    let running = Running::open().await;
    let operator = running.operator(None);
    let mut file = Vec::new();
    let (version, length) = operator
        .download(&HERE, JOB, None, &mut file)
        .await
        .unwrap();
    assert_eq!((version, length), (ModelVersion(3), file.len() as u64));
    assert_eq!(file, encode(&running.fake.model));
    let model = operator.model(&HERE, JOB, Some(ModelVersion(3))).await;
    assert_eq!(model.unwrap(), running.fake.model);
    assert_eq!(decode(&file).unwrap(), *running.fake.model);
    let gone = operator.model(&HERE, JOB, Some(ModelVersion(1))).await;
    assert_eq!(kind(gone), RefusalKind::Gone);
}

#[tokio::test]
async fn with_a_join_token_nothing_but_health_is_open() {
    let running = Running::start(Fake::closed(), Limits::default()).await;
    for token in [None, Some("token-1"), Some("joi"), Some("joinx")] {
        let operator = running.operator(token);
        let spec = JobSpec::default();
        let refused = [
            kind(operator.submit(&HERE, spec.clone(), None).await),
            kind(
                operator
                    .submit(&HERE, spec.clone(), Some(running.fake.model.clone()))
                    .await,
            ),
            kind(operator.jobs(&HERE).await),
            kind(operator.job(&HERE, JOB).await),
            kind(operator.rounds(&HERE, JOB, RoundId(0)).await),
            kind(operator.cancel(&HERE, JOB).await),
            kind(operator.pause(&HERE, JOB, true).await),
            kind(operator.delete(&HERE, JOB).await),
            kind(operator.events(&HERE, JOB, 0).await),
            kind(operator.workers(&HERE).await),
            kind(operator.model(&HERE, JOB, None).await),
        ];
        assert_eq!(refused, [RefusalKind::Unauthorized; 11], "{token:?}");
        assert!(operator.health().await.is_ok());
    }
    assert!(running.fake.submitted.lock().unwrap().is_empty());
    assert!(running.operator(Some("join")).jobs(&HERE).await.is_ok());
}

#[tokio::test]
async fn a_web_page_is_neither_an_operator_nor_a_worker() {
    let limits = Limits::with(|limits| {
        limits.router.hosts = vec!["lab".to_string()];
    });
    let running = Running::start(Fake::open(), limits).await;
    let (cancel, jobs) = ("POST /api/v1/jobs/1/cancel", "GET /api/v1/jobs");
    let (register, health) = ("POST /api/v1/workers", "GET /api/v1/health");
    for (status, request, headers) in [
        (403, cancel, "host: localhost\r\norigin: http://evil\r\n"),
        (403, register, "host: localhost\r\norigin: null\r\n"),
        // A page whose name was made to mean this machine sends no origin with a GET.
        (403, jobs, "host: evil.example:8000\r\n"),
        (403, register, "host: evil.example\r\n"),
        (403, jobs, "host: localhost.evil.example\r\n"),
        // An open coordinator does not look at a token, so that one proves nothing.
        (
            403,
            jobs,
            "host: evil.example\r\nauthorization: Bearer x\r\n",
        ),
        (
            403,
            register,
            "host: localhost\r\norigin: http://evil\r\nauthorization: Bearer x\r\n",
        ),
        (200, jobs, "host: localhost:8000\r\n"),
        (200, jobs, "host: LAB\r\n"),
        (200, jobs, "host: 127.0.0.1:8000\r\n"),
        (200, jobs, "host: [::1]:8000\r\n"),
        (200, health, "host: evil.example\r\n"),
    ] {
        let request = format!("{request} HTTP/1.1\r\n{headers}connection: close\r\n\r\n");
        let answer = running.raw(request.as_str()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request}{answer}"
        );
    }
}
