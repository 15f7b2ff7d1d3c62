//! Submissions whose work is out of proportion: the headers of initial models, and specifications of a megabyte.

use super::{Limits, Running, fake::Fake};

/// The head of a submission with an initial model of this many bytes.
fn head(length: usize) -> String {
    format!(
        "POST /api/v1/jobs HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/octet-stream\r\nfedavg-job: {{}}\r\ncontent-length: {length}\r\n\r\n"
    )
}

/// A submission whose initial model has this header, and no values.
fn with_header(json: &str) -> Vec<u8> {
    let mut request = head(8 + json.len()).into_bytes();
    request.extend_from_slice(&(json.len() as u64).to_le_bytes());
    request.extend_from_slice(json.as_bytes());
    request
}

/// A header of empty tensors of these names.
fn header(names: impl IntoIterator<Item = String>) -> String {
    let mut entries = Vec::new();
    for name in names {
        entries.push(format!(
            r#""{name}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#
        ));
    }
    format!("{{{}}}", entries.join(","))
}

#[tokio::test]
async fn a_header_beyond_a_limit_is_refused_with_what_raises_it() {
    let limits = Limits::with(|limits| {
        limits.router.header.bytes = 2000;
        limits.router.header.tensors = 5;
        limits.router.header.name = 10;
    });
    let running = Running::start(Fake::open(), limits).await;
    let names = |count: usize| (0..count).map(|index| format!("w{index}"));
    let accepted = running.raw(with_header(&header(names(5)))).await;
    assert!(accepted.starts_with("HTTP/1.1 201"), "{accepted}");
    for (header, parts) in [
        (header(names(6)), ["5 tensors", "--max-tensors"]),
        (
            header(["a name that is long".to_string()]),
            ["19 bytes, and 10 is", "--max-tensor-name"],
        ),
        (header(names(40)), ["and 2000 is the most", "--max-header"]),
    ] {
        let answer = running.raw(with_header(&header)).await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        for part in parts {
            assert!(answer.contains(part), "{answer}");
        }
    }
}

#[tokio::test]
async fn a_header_that_is_announced_too_long_is_not_waited_for() {
    let running = Running::open().await;
    let length: u64 = 90_000_000;
    let mut request = head(100_000_000).into_bytes();
    request.extend_from_slice(&length.to_le_bytes());
    let answer = running.raw(request).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("90000000 bytes"), "{answer}");
}

#[tokio::test]
async fn a_specification_may_have_a_megabyte_and_a_registration_may_not() {
    let running = Running::open().await;
    let post = |path: &str, body: String| {
        let length = body.len();
        format!(
            "POST /api/v1/{path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    };
    let spec = format!("{{\"rounds\":3{}}}", " ".repeat(900_000));
    let accepted = running.raw(post("jobs", spec)).await;
    assert!(accepted.starts_with("HTTP/1.1 201"), "{accepted}");
    let registration = format!("{{\"name\":\"{}\"}}", "x".repeat(70_000));
    let refused = running.raw(post("workers", registration)).await;
    assert!(refused.starts_with("HTTP/1.1 413"), "{refused}");
    assert!(
        refused.contains("the registration has 70011 bytes, and 65536 is the most"),
        "{refused}"
    );
}
