//! What no honest worker sends. Each gets a problem document, and the server goes on.

use std::time::Duration;

use super::{Limits, Running, fake::Fake};
use crate::transport::Operator;

const WORKER: &str = "authorization: Bearer token-1\r\nfedavg-worker: 1\r\n";
const JSON: &str = "content-type: application/json\r\n";
const REPORT: &str = "fedavg-report: {\"base_version\":3,\"examples\":1,\"steps\":1}\r\n";

fn request(line: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
    )
}

/// The status, the code and the detail of a problem document.
fn problem(answer: &str) -> (u16, String, String) {
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("{answer}"));
    assert!(
        head.contains("content-type: application/problem+json"),
        "{answer}"
    );
    let json: serde_json::Value = serde_json::from_str(body).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    assert_eq!(json["status"], status, "{answer}");
    let text = |name: &str| json[name].as_str().unwrap().to_string();
    (status, text("code"), text("detail"))
}

#[tokio::test]
async fn each_bad_request_gets_its_problem() {
    let running = Running::open().await;
    let poll = "POST /api/v1/workers/1/poll";
    let put = "PUT /api/v1/jobs/1/rounds/4/reports/2";
    let with = |more: &str| format!("{WORKER}{more}");
    let busy = |lr: f64, mu: f64| {
        format!(
            r#"{{"busy":[{{"job":1,"round":2,"client":3,"version":4,"kind":"train","remaining_ms":5,"objective":{{"kind":"proximal","mu":{mu}}},"training":{{"local_epochs":1,"batch_size":64,"optimizer":"sgd","lr":{lr},"momentum":0.9,"weight_decay":0,"augment":false}}}}]}}"#
        )
    };
    let deep = format!("{{\"busy\":{}", "[".repeat(10_000));
    let cases = [
        // Paths.
        ("GET /", "", "", 404, "not_found"),
        ("GET /api/v1", "", "", 404, "not_found"),
        ("GET /api/v1/nothing", "", "", 404, "not_found"),
        ("GET /api/v1/health/", "", "", 404, "not_found"),
        ("GET /api/v1/../v1/health", "", "", 404, "not_found"),
        ("GET /api/v1/jobs/..", "", "", 404, "not_found"),
        ("GET /api/v1/jobs/%2e%2e", "", "", 404, "not_found"),
        (
            "GET /api/v1/jobs/%2e%2e%2fworkers",
            "",
            "",
            404,
            "not_found",
        ),
        ("GET /api/v1/jobs/%ff", "", "", 404, "not_found"),
        ("GET /api/v1/jobs/%00", "", "", 404, "not_found"),
        ("GET /api/v1/jobs/-1", "", "", 404, "not_found"),
        ("GET /api/v1/jobs/1.5", "", "", 404, "not_found"),
        (
            "GET /api/v1/jobs/18446744073709551616",
            "",
            "",
            404,
            "not_found",
        ),
        (
            "GET /api/v1/jobs/18446744073709551615",
            "",
            "",
            404,
            "unknown_job",
        ),
        ("GET /api/v1/jobs/1/models/newest", "", "", 404, "not_found"),
        (
            "GET /api/v1/jobs/1/partitions/4294967296",
            WORKER,
            "",
            404,
            "not_found",
        ),
        (
            "GET /api/v1/jobs/1/models/latest",
            WORKER,
            "",
            404,
            "not_found",
        ),
        (
            "GET /api/v1/jobs/1/models/18446744073709551615",
            WORKER,
            "",
            404,
            "not_found",
        ),
        (
            "GET /api/v1/jobs/1/events?after=x",
            "",
            "",
            400,
            "malformed",
        ),
        (
            "GET /api/v1/jobs/1/events",
            "last-event-id: x\r\n",
            "",
            400,
            "malformed",
        ),
        // Methods.
        ("DELETE /api/v1/health", "", "", 405, "method_not_allowed"),
        ("PATCH /api/v1/jobs/1", "", "", 405, "method_not_allowed"),
        ("TRACE /api/v1/jobs", "", "", 405, "method_not_allowed"),
        // Credentials.
        (poll, JSON, "{}", 401, "unauthorized"),
        (
            poll,
            "authorization: Basic dTpw\r\n",
            "{}",
            401,
            "unauthorized",
        ),
        (poll, "authorization: Bearer\r\n", "{}", 401, "unauthorized"),
        (
            poll,
            "authorization: Bearer  \r\n",
            "{}",
            401,
            "unauthorized",
        ),
        (
            poll,
            "authorization: Bearer \u{fe}\r\n",
            "{}",
            401,
            "unauthorized",
        ),
        (
            "GET /api/v1/jobs",
            "authorization: x\r\n",
            "",
            401,
            "unauthorized",
        ),
        (
            "GET /api/v1/jobs/1/description",
            "authorization: Bearer token-1\r\n",
            "",
            401,
            "unauthorized",
        ),
        (
            "GET /api/v1/jobs/1/description",
            "authorization: Bearer token-1\r\nfedavg-worker: one\r\n",
            "",
            401,
            "unauthorized",
        ),
        (
            "GET /api/v1/jobs/1/models/3",
            "fedavg-worker: 1\r\n",
            "",
            401,
            "unauthorized",
        ),
        // JSON.
        (poll, &with(JSON), "", 400, "malformed"),
        (poll, &with(JSON), "{", 400, "malformed"),
        (poll, &with(JSON), "nonsense", 400, "malformed"),
        (poll, &with(JSON), "{}{}", 400, "malformed"),
        (poll, &with(JSON), &deep, 422, "malformed"),
        (poll, &with(JSON), "{\"busy\":1}", 422, "malformed"),
        (poll, &with(JSON), "{\"wait_ms\":-1}", 422, "malformed"),
        (poll, &with(JSON), &busy(-1.0, 0.1), 422, "malformed"),
        (poll, &with(JSON), &busy(0.1, -1.0), 422, "malformed"),
        (poll, &with(JSON), "{\"wait_ms\":1e99}", 422, "malformed"),
        (poll, &with(""), "{}", 415, "unsupported_media_type"),
        (
            poll,
            &with("content-type: text/plain\r\n"),
            "{}",
            415,
            "unsupported_media_type",
        ),
        (
            "POST /api/v1/workers",
            JSON,
            "{\"protocol\":1}",
            422,
            "malformed",
        ),
        (
            "POST /api/v1/jobs",
            JSON,
            "{\"modle\":\"mlp\"}",
            422,
            "invalid_job",
        ),
        (
            "POST /api/v1/jobs",
            JSON,
            "{\"rounds\":-1}",
            422,
            "invalid_job",
        ),
        ("POST /api/v1/jobs", JSON, "{", 400, "malformed"),
        (
            "PUT /api/v1/jobs/1/models/3/evaluations/2",
            &with(JSON),
            "{}",
            400,
            "malformed",
        ),
        (
            "PUT /api/v1/jobs/1/models/3/evaluations/2",
            &with(JSON),
            "{\"evaluation\":{\"loss\":null,\"accuracy\":1,\"examples\":1}}",
            422,
            "malformed",
        ),
        // Parameters.
        (put, WORKER, "", 400, "malformed"),
        (put, &with("fedavg-report: {\r\n"), "", 400, "malformed"),
        (put, &with("fedavg-report: {}\r\n"), "", 422, "malformed"),
        (
            put,
            &with(
                "fedavg-report: {\"base_version\":3,\"examples\":1,\"steps\":1,\"metrics\":{\"x\":null}}\r\n",
            ),
            "",
            422,
            "malformed",
        ),
        (put, &with(REPORT), "", 422, "malformed"),
        (put, &with(REPORT), "0123456789abcdef", 422, "malformed"),
        (
            put,
            &with(&format!("{REPORT}{JSON}")),
            "{}",
            415,
            "unsupported_media_type",
        ),
        (
            "POST /api/v1/jobs",
            "content-type: application/octet-stream\r\n",
            "",
            400,
            "malformed",
        ),
        (
            "POST /api/v1/jobs",
            "content-type: application/octet-stream\r\nfedavg-job: {}\r\n",
            "\u{1}\0\0\0\0\0\0\0x",
            422,
            "malformed",
        ),
    ];
    for (line, headers, body, status, code) in cases {
        let answer = running.raw(request(line, headers, body)).await;
        let (found_status, found_code, detail) = problem(&answer);
        assert_eq!(
            (found_status, &*found_code),
            (status, code),
            "{line} {headers} {body:.60}"
        );
        assert!(!detail.is_empty(), "{line}");
    }
    let challenge = running.raw(request(poll, "", "")).await;
    assert!(
        challenge.contains("www-authenticate: Bearer"),
        "{challenge}"
    );
    let method = running.raw(request("PUT /api/v1/health", "", "")).await;
    assert!(method.contains("allow: GET"), "{method}");
}

#[tokio::test]
async fn what_is_not_http_is_no_danger() {
    let running = Running::open().await;
    for garbage in [
        "\0\0\0\0\r\n\r\n".to_string(),
        "GET\r\n\r\n".to_string(),
        "GET /api/v1/health HTTP/9.9\r\n\r\n".to_string(),
        "GET /api/v1/health HTTP/1.1\r\ncontent-length: -1\r\n\r\n".to_string(),
        "GET /api/v1/health HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n".to_string(),
        format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000)),
        format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(200)),
    ] {
        let answer = running.raw(garbage.clone()).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{garbage:.60}: {answer}"
        );
    }
    assert!(running.operator(None).health().await.is_ok());
}

#[tokio::test]
async fn numbers_in_paths_and_queries_that_are_none_are_named_in_plain_words() {
    let running = Running::open().await;
    for (path, status, detail) in [
        (
            "/api/v1/jobs/abc",
            404,
            "no such path: each ID in /api/v1/jobs/abc must be a whole number",
        ),
        (
            "/api/v1/jobs/18446744073709551616",
            404,
            "no such path: an ID in /api/v1/jobs/18446744073709551616 is too large",
        ),
        (
            "/api/v1/jobs?limit=-1",
            400,
            "after and limit must be whole numbers of at least 0",
        ),
        (
            "/api/v1/jobs?limit=0",
            400,
            "limit is 0, and must be 1 or more",
        ),
    ] {
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let (found, _, said) = problem(&running.raw(request).await);
        assert_eq!((found, &*said), (status, detail), "{path}");
    }
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_it_is_read() {
    let config = Limits::with(|limits| {
        limits.router.max_body = 1000;
        let json = &mut limits.router.json;
        (json.job, json.tasks) = (100, 100);
    });
    let running = Running::start(Fake::open(), config).await;
    for (line, headers) in [
        (
            "PUT /api/v1/jobs/1/rounds/4/reports/2",
            format!("{WORKER}{REPORT}"),
        ),
        (
            "POST /api/v1/jobs",
            "content-type: application/octet-stream\r\nfedavg-job: {}\r\n".to_string(),
        ),
        ("POST /api/v1/jobs", JSON.to_string()),
        (
            "POST /api/v1/workers/1/heartbeat",
            format!("{WORKER}{JSON}"),
        ),
    ] {
        // Nothing of the body is sent: a handler that reads it first waits forever.
        let head = format!(
            "{line} HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\n{headers}content-length: 1001\r\n\r\n"
        );
        let (status, code, _) = problem(&running.raw(head).await);
        assert_eq!((status, &*code), (413, "too_large"), "{line}");
    }
    // Without a length, it shows when it has come.
    let chunks = format!("{:x}\r\n{}\r\n0\r\n\r\n", 1001, "x".repeat(1001));
    for (line, headers) in [
        (
            "POST /api/v1/workers/1/heartbeat",
            format!("{WORKER}{JSON}"),
        ),
        ("POST /api/v1/jobs", JSON.to_string()),
    ] {
        let request = format!(
            "{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}transfer-encoding: chunked\r\n\r\n{chunks}"
        );
        let (status, code, _) = problem(&running.raw(request).await);
        assert_eq!((status, &*code), (413, "too_large"), "{line}");
    }
    // The coordinator hears of the report alone: it must know that this client's was refused.
    let asked = running.fake.asked.lock().unwrap();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(asked[0].starts_with("Report"), "{asked:?}");
}

#[tokio::test]
async fn a_model_that_announces_more_than_it_has_takes_no_memory() {
    let running = Running::open().await;
    let header =
        r#"{"w":{"dtype":"F32","shape":[100000000000000],"data_offsets":[0,400000000000000]}}"#;
    let mut request = format!(
        "POST /api/v1/jobs HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/octet-stream\r\nfedavg-job: {{}}\r\ncontent-length: {}\r\n\r\n",
        8 + header.len()
    )
    .into_bytes();
    request.extend_from_slice(&(header.len() as u64).to_le_bytes());
    request.extend_from_slice(header.as_bytes());
    let (status, code, detail) = problem(&running.raw(request).await);
    assert_eq!((status, &*code), (422, "malformed"), "{detail}");
}

#[tokio::test]
async fn who_sends_half_of_something_is_not_waited_for() {
    let config = Limits::with(|limits| {
        limits.server.header_timeout = Duration::from_millis(50);
        limits.router.stall_timeout = Duration::from_millis(50);
        limits.server.stall_timeout = Duration::from_millis(50);
    });
    let running = Running::start(Fake::open(), config).await;
    // Nothing at all, half of a head, and a connection that is idle after its request: closed without an answer.
    assert_eq!(running.raw("").await, "");
    let half = running.raw("GET /api/v1/hea").await;
    assert!(
        half.is_empty() || half.starts_with("HTTP/1.1 408"),
        "{half}"
    );
    let idle = running
        .raw("GET /api/v1/health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await;
    assert!(idle.starts_with("HTTP/1.1 200"), "{idle}");
    // Half of a body: told so.
    let head = format!(
        "POST /api/v1/workers/1/heartbeat HTTP/1.1\r\nhost: localhost\r\n{WORKER}{JSON}content-length: 9\r\n\r\n{{"
    );
    let (status, code, _) = problem(&running.raw(head).await);
    assert_eq!((status, &*code), (400, "truncated"));
}
