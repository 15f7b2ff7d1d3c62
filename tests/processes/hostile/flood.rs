//! Floods: of connections, of registrations, and of what no honest client sends.
//!
//! Attackers have loopback addresses of their own, so that the limits of addresses (`--limit-loopback`) are theirs alone.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use super::{
    beside::SetAtEnd,
    victim::Victim,
    wire::{answer, connect, json_headers, request, request_with},
};

/// Idle connections: as many as an attack with forty addresses gets.
const ADDRESSES: u8 = 40;
const PER_ADDRESS: usize = 250;

/// What no honest client sends, each with the statuses that may answer it; 0: the connection ends without an answer.
fn tricks() -> Vec<(Vec<u8>, &'static [u16])> {
    let raw = |text: &str| text.as_bytes().to_vec();
    let long = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(300_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(20_000));
    let wide = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(1_000_000));
    vec![
        // Two lengths, or two ways to say the length: a request could be hidden in another one.
        (
            raw(
                "POST /api/v1/workers HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ncontent-length: 5\r\nconnection: close\r\n\r\nabcd",
            ),
            &[400],
        ),
        (
            raw(
                "POST /api/v1/workers HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            ),
            &[400, 401],
        ),
        (
            raw(
                "POST /api/v1/workers HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\nconnection: close\r\n\r\n",
            ),
            &[400],
        ),
        (
            raw(
                "POST /api/v1/workers HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\nconnection: close\r\n\r\n",
            ),
            &[400],
        ),
        // A header that goes on in the next line.
        (
            raw("GET /api/v1/jobs HTTP/1.1\r\nhost: a\r\nx: a\r\n b\r\nconnection: close\r\n\r\n"),
            &[400],
        ),
        (
            raw("GET /api/v1/jobs HTTP/1.1\r\nhost : a\r\nconnection: close\r\n\r\n"),
            &[400],
        ),
        (
            raw("GET /api/v1/jobs HTTP/1.1\nhost: a\nconnection: close\n\n"),
            &[400, 401],
        ),
        (request("GET /api/v1/jobs/..", ""), &[401, 404]),
        (request("GET /api/v1/jobs/%2e%2e", ""), &[401, 404]),
        (request("GET //api/v1/jobs", ""), &[404]),
        (request("GET /api//v1/jobs", ""), &[404]),
        (request("GET /api/v1/jobs/%00", ""), &[401, 404]),
        (raw("GET /\0 HTTP/1.1\r\nhost: a\r\n\r\n"), &[400]),
        (long.into_bytes(), &[0, 400, 414, 431]),
        (many.into_bytes(), &[0, 400, 431]),
        (wide.into_bytes(), &[0, 400, 431]),
        (
            request("GET /api/v1/jobs", "origin: https://evil.example\r\n"),
            &[401],
        ),
        (
            raw("GET /api/v1/jobs HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n"),
            &[401],
        ),
        (
            raw("GET /api/v1/jobs HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n"),
            &[400, 401],
        ),
        (
            raw(
                "GET http://evil.example/api/v1/jobs HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
            ),
            &[400, 401],
        ),
        (raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), &[0, 400, 404, 505]),
    ]
}

#[test]
fn a_coordinator_under_attack_stays_small_and_serves_its_workers() {
    let victim = Victim::start("--limit-loopback --stranger-idle 12");
    let (to, token) = (victim.to, victim.join_token.clone());

    for (bytes, allowed) in tricks() {
        let told = answer([127, 0, 2, 1], to, &bytes).status();
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
        // Wrong tokens of this address wait after a while.
        let is_allowed = allowed.contains(&told) || (told == 429 && allowed.contains(&401));
        assert!(is_allowed, "{told}: {shown}");
    }
    reports_that_are_not_its_own(to, &token);

    // One address has no more than its share: the 257th connection is told so, or closed.
    let mut share = Vec::new();
    for _ in 0..300 {
        share.push(connect([127, 0, 4, 1], to).unwrap());
    }
    for stream in &mut share[256..] {
        let mut told = String::new();
        let ended = stream.read_to_string(&mut told);
        assert!(
            ended.is_ok() && told.starts_with("HTTP/1.1 429"),
            "{ended:?} {told}"
        );
    }
    drop(share);

    // Idle, and with half of a head.
    let mut idle = Vec::new();
    for address in 1..=ADDRESSES {
        for index in 0..PER_ADDRESS {
            let mut stream = connect([127, 0, 1, address], to).unwrap();
            if index % 2 == 0 {
                let _ = stream.write_all(b"GET /api/v1/health HTT");
            }
            idle.push(stream);
        }
    }
    let is_over = AtomicBool::new(false);
    let sent = AtomicUsize::new(0);
    let shown_tokens = [String::new(), "wrong".to_string(), token.clone()];
    let attack = format!("{} idle connections, 3 floods of registrations", idle.len());
    thread::scope(|scope| {
        for (index, shown) in shown_tokens.iter().enumerate() {
            let (is_over, sent) = (&is_over, &sent);
            scope.spawn(move || {
                let from = [127, 0, 3, index as u8 + 1];
                let bytes = request_with("POST /api/v1/workers", &json_headers(shown), b"{}");
                while !is_over.load(Ordering::Relaxed) {
                    let told = answer(from, to, &bytes).status();
                    assert!([0, 400, 401, 422, 429, 503].contains(&told), "{told}");
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let _end = SetAtEnd(&is_over);
        victim.withstands(&attack, 400);
    });
    println!("{} registrations", sent.load(Ordering::Relaxed));
    // The coordinator closes strangers that stay idle, while their side is open.
    victim.is_rid_of_them();
}

/// A worker that got in sends reports for rounds that have closed, and for clients of another one.
fn reports_that_are_not_its_own(to: SocketAddr, join_token: &str) {
    let from = [127, 0, 2, 2];
    let body = br#"{"protocol":2,"name":"attacker","datasets":[]}"#;
    let headers = json_headers(join_token);
    let registered = answer(
        from,
        to,
        &request_with("POST /api/v1/workers", &headers, body),
    );
    assert_eq!(registered.status(), 201, "{registered:?}");
    let json = registered.json();
    let (worker, token) = (&json["worker"], json["token"].as_str().unwrap());
    for (path, other) in [
        ("/api/v1/jobs/1/rounds/1/reports/0", None),
        ("/api/v1/jobs/1/rounds/1/reports/1", None),
        ("/api/v1/jobs/1/rounds/99/reports/0", None),
        ("/api/v1/jobs/1/rounds/1/reports/0", Some(1)),
    ] {
        let named = other.map_or(worker.to_string(), |other: u64| other.to_string());
        let headers = format!(
            "authorization: Bearer {token}\r\nfedavg-worker: {named}\r\nfedavg-report: {{\"base_version\":0,\"examples\":1,\"steps\":1}}\r\ncontent-type: application/octet-stream\r\ncontent-length: 0\r\n"
        );
        let told = answer(from, to, &request(&format!("PUT {path}"), &headers)).status();
        let allowed: &[u16] = if other.is_some() {
            &[401, 403]
        } else {
            &[403, 404, 409, 410]
        };
        assert!(allowed.contains(&told), "{told}: {path}");
    }
    let headers = format!("authorization: Bearer {token}\r\n");
    let leaves = request(&format!("DELETE /api/v1/workers/{worker}"), &headers);
    assert_eq!(answer(from, to, &leaves).status(), 204);
}
