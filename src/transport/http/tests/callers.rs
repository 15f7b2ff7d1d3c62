//! Limits of callers: what they refuse, how they say it, and whom they let through.

use std::time::{Duration, Instant};

use super::{Limits, Running, credentials, fake::Fake};
use crate::{
    protocol::{Registration, Token},
    report::RefusalKind,
    transport::{Peer, Request, Response, Transport, http::CallerLimits},
};

async fn limited(change: impl FnOnce(&mut CallerLimits)) -> Running {
    let mut callers = CallerLimits::default();
    change(&mut callers);
    let limits = Limits::with(|limits| {
        limits.router.callers = callers.clone();
        limits.server.callers = callers;
    });
    Running::start(Fake::closed(), limits).await
}

fn head(line: &str, headers: &str) -> String {
    format!(
        "{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}content-length: 0\r\n\r\n"
    )
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

/// The value of a header.
fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let (head, _) = answer.split_once("\r\n\r\n")?;
    let line = head
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    line.map(str::trim)
}

const LEAVE: &str = "DELETE /api/v1/workers/1";
const VALID: &str = "authorization: Bearer token-1\r\n";
const WRONG: &str = "authorization: Bearer wrong\r\n";

#[tokio::test]
async fn more_requests_than_an_address_may_send_are_told_when_to_come_back() {
    let running = limited(|limits| limits.loopback.requests = 2).await;
    let mut answers = Vec::new();
    for _ in 0..20 {
        answers.push(running.raw(head("GET /api/v1/health", "")).await);
    }
    let refused = answers.iter().find(|answer| status(answer) == "429");
    let refused = refused.unwrap_or_else(|| panic!("{answers:?}"));
    assert_eq!(header(refused, "retry-after"), Some("1"));
    assert!(refused.contains("\"code\":\"too_many\""), "{refused}");
    assert!(refused.contains("\"transient\":true"), "{refused}");
    assert_eq!(status(&answers[0]), "200");
}

#[tokio::test]
async fn wrong_tokens_are_told_to_wait_and_a_valid_one_passes() {
    let running = limited(|limits| limits.loopback.failures = 3).await;
    for _ in 0..3 {
        assert_eq!(status(&running.raw(head(LEAVE, WRONG)).await), "401");
    }
    for headers in [WRONG, ""] {
        let told = running.raw(head(LEAVE, headers)).await;
        assert_eq!(status(&told), "429", "{told}");
        assert_eq!(header(&told, "retry-after"), Some("1"));
        // A worker whose token is not known any more registers again.
        assert!(told.contains("\"code\":\"unauthorized\""), "{told}");
    }
    let refused = running.raw(head("GET /api/v1/jobs", WRONG)).await;
    assert_eq!(status(&refused), "429", "{refused}");
    assert_eq!(status(&running.raw(head(LEAVE, VALID)).await), "204");
    let worker = running.worker();
    let registers = worker.send(Request::Register {
        join_token: Some(Token("join".to_string())),
        registration: Registration::new("lab".to_string()),
    });
    assert!(matches!(registers.await, Ok(Response::Registered(_))));
}

#[tokio::test]
async fn a_worker_that_sends_too_much_waits_as_it_is_told() {
    let running = limited(|limits| limits.loopback.worker_requests = 1).await;
    let worker = running.worker();
    let leave = || Request::Leave {
        credentials: credentials(1),
    };
    assert!(matches!(worker.send(leave()).await, Ok(Response::Accepted)));
    let start = Instant::now();
    let refused = worker.send(leave()).await;
    assert!(
        matches!(&refused, Ok(Response::Refused(refusal)) if refusal.kind == RefusalKind::TooMany),
        "{refused:?}"
    );
    assert!(start.elapsed() >= Duration::from_secs(1));
    // Another worker at the same address has a rate of its own.
    let other = Request::Leave {
        credentials: credentials(2),
    };
    assert!(matches!(worker.send(other).await, Ok(Response::Accepted)));
    assert!(matches!(worker.send(leave()).await, Ok(Response::Accepted)));
}

#[tokio::test]
async fn registrations_are_limited_by_address_and_in_all() {
    let register = "POST /api/v1/workers";
    let joins = "authorization: Bearer join\r\ncontent-type: application/json\r\n";
    for (of_address, in_all, refusal) in [(1, 0, "429"), (0, 1, "503")] {
        let running = limited(|limits| {
            limits.loopback.registrations = of_address;
            limits.registrations = in_all;
        })
        .await;
        let mut refused = None;
        for _ in 0..10 {
            // Without a body they are malformed, and count nevertheless.
            let answer = running.raw(head(register, joins)).await;
            if status(&answer) == refusal {
                refused = header(&answer, "retry-after").map(str::to_string);
            }
        }
        assert_eq!(refused.as_deref(), Some("1"));
    }
}

#[tokio::test]
async fn a_stranger_that_is_idle_is_closed_and_a_worker_is_not() {
    let running = limited(|limits| {
        limits.stranger_idle = Duration::from_millis(100);
        limits.loopback.strangers = 1;
    })
    .await;
    // Ends as the server closes it, long before the 30 s for a head.
    let start = Instant::now();
    assert_eq!(running.raw("").await, "");
    assert_eq!(running.raw("GET /api/v1/heal").await, "");
    assert!(start.elapsed() < Duration::from_secs(10));
    let worker = running.worker();
    let leave = || Request::Leave {
        credentials: credentials(1),
    };
    worker.send(leave()).await.unwrap();
    // The worker's connection counts no more, and is not closed: the next stranger's is.
    assert_eq!(running.raw("").await, "");
    worker.send(leave()).await.unwrap();
}

#[tokio::test]
async fn only_a_trusted_proxy_says_whose_request_it_is() {
    let forwarded = format!("{VALID}x-forwarded-for: 6.6.6.6, 203.0.113.9\r\n");
    for is_trusted in [false, true] {
        let running = limited(|limits| {
            if is_trusted {
                limits.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
            }
        })
        .await;
        running.raw(head(LEAVE, &forwarded)).await;
        let peers = running.fake.peers.lock().unwrap().clone();
        let caller = peers[0].address().unwrap().ip().to_string();
        if is_trusted {
            assert_eq!(caller, "203.0.113.9");
            assert!(!peers[0].is_here());
        } else {
            assert!(matches!(peers[0], Peer::Address(_)));
            assert_eq!(caller, "127.0.0.1");
        }
    }
    let here = Peer::Forwarded("127.0.0.1:0".parse().unwrap());
    assert!(!here.is_here());
}

#[tokio::test]
async fn every_answer_has_a_number_and_keeps_browsers_off() {
    let running = limited(|_| {}).await;
    let mut numbers = Vec::new();
    for (line, headers) in [
        ("GET /api/v1/health", "fedavg-request-id: mine\r\n"),
        (LEAVE, WRONG),
        ("GET /nothing", ""),
        ("PATCH /api/v1/health", ""),
    ] {
        let answer = running.raw(head(line, headers)).await;
        let number = header(&answer, "fedavg-request-id").unwrap().to_string();
        assert_ne!(number, "mine");
        let is_problem = status(&answer) != "200";
        assert_eq!(
            answer.contains(&format!("\"request_id\":\"{number}\"")),
            is_problem,
            "{answer}"
        );
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
            (
                "content-security-policy",
                "default-src 'none'; frame-ancestors 'none'",
            ),
        ] {
            assert_eq!(header(&answer, name), Some(value), "{line}");
        }
        assert_eq!(header(&answer, "strict-transport-security"), None);
        numbers.push(number);
    }
    numbers.dedup();
    assert_eq!(numbers.len(), 4);
}
