//! Requests of those who may not make them: each is refused by its head alone, whatever its body is.

use std::time::Duration;

use super::{Limits, Running, fake::Fake};

const JSON: &str = "content-type: application/json\r\n";
const REPORT: &str = "fedavg-report: {\"base_version\":3,\"examples\":1,\"steps\":1}\r\n";
const MODEL: &str = "content-type: application/octet-stream\r\nfedavg-job: {}\r\n";

/// A server whose peers may be silent for an hour, so that who waits for a body waits for as long.
async fn patient() -> Running {
    let limits = Limits::with(|limits| {
        limits.router.stall_timeout = Duration::from_secs(3600);
        limits.server.stall_timeout = Duration::from_secs(3600);
        limits.server.linger_timeout = Duration::from_millis(20);
    });
    Running::start(Fake::closed(), limits).await
}

/// The status of the answer to a request whose body has begun and never ends.
async fn answer(running: &Running, line: &str, headers: &str) -> u16 {
    let head = format!(
        "{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}content-length: 50000\r\n\r\n{{\"name\": "
    );
    let answer = running.raw(head).await;
    let status = answer.split(' ').nth(1);
    status.and_then(|status| status.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn no_body_is_read_of_who_is_no_worker() {
    let running = patient().await;
    let report = format!("fedavg-worker: 1\r\n{REPORT}");
    let shared = format!("fedavg-worker: 1\r\n{JSON}");
    let routes = [
        ("POST /api/v1/workers/1/heartbeat", JSON),
        ("POST /api/v1/workers/1/poll", JSON),
        ("DELETE /api/v1/workers/1", ""),
        ("PUT /api/v1/jobs/1/rounds/4/reports/2", &report),
        ("POST /api/v1/jobs/1/rounds/4/failures/2", &shared),
        ("PUT /api/v1/jobs/1/models/3/evaluations/2", &shared),
    ];
    for (line, headers) in routes {
        for (token, status) in [
            ("", 401),
            ("authorization: Bearer unknown\r\n", 401),
            ("authorization: Bearer join\r\n", 401),
            ("authorization: Bearer token-2\r\n", 403),
        ] {
            let headers = format!("{token}{headers}");
            assert_eq!(
                answer(&running, line, &headers).await,
                status,
                "{line} {token}"
            );
        }
    }
    assert!(running.fake.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn no_body_is_read_of_who_lacks_the_join_token() {
    let running = patient().await;
    for (line, headers) in [
        ("POST /api/v1/workers", JSON),
        ("POST /api/v1/jobs", JSON),
        ("POST /api/v1/jobs", MODEL),
        ("POST /api/v1/jobs/1/cancel", JSON),
        ("POST /api/v1/jobs/1/pause", JSON),
        ("DELETE /api/v1/jobs/1", JSON),
    ] {
        for token in ["", "authorization: Bearer token-1\r\n"] {
            let headers = format!("{token}{headers}");
            assert_eq!(
                answer(&running, line, &headers).await,
                401,
                "{line} {token}"
            );
        }
    }
    assert!(running.fake.asked.lock().unwrap().is_empty());
    assert!(running.fake.submitted.lock().unwrap().is_empty());
}
