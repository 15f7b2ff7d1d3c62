//! A coordinator under attack: its memory, its open descriptors, and how long an honest job takes beside it.
//!
//! Attackers have loopback addresses of their own, so that the limits of addresses (`--limit-loopback`) are theirs alone.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use tokio::{net::TcpSocket, runtime};

use super::{
    deployment::{Deployment, binary},
    process::Process,
};

/// Idle connections: as many as an attack with forty addresses gets.
const ADDRESSES: u8 = 40;
const PER_ADDRESS: usize = 250;

/// A field of `/proc/PID/status`, in KiB.
fn memory(process: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let number = line
        .unwrap()
        .trim_start_matches(':')
        .trim()
        .trim_end_matches(" kB");
    number.parse().unwrap()
}

fn descriptors(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).unwrap().count()
}

/// A connection from this address.
fn connect(from: [u8; 4], to: SocketAddr) -> std::io::Result<TcpStream> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let stream = runtime.block_on(async {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((from, 0)))?;
        socket.connect(to).await
    });
    let stream = stream?.into_std()?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    Ok(stream)
}

/// The answer to these bytes, until the other side closes.
fn answer(from: [u8; 4], to: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = connect(from, to).unwrap();
    // Who is refused before its end may not get rid of the rest.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> u16 {
    let status = answer.split(' ').nth(1);
    status.and_then(|status| status.parse().ok()).unwrap_or(0)
}

fn job(deployment: &Deployment) -> Duration {
    let start = Instant::now();
    let job = deployment.submit("--clients 2 --rounds 2");
    let (_, code) = deployment.watch(job).finish();
    assert_eq!(code, Some(0));
    start.elapsed()
}

fn request(line: &str, headers: &str) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n").into_bytes()
}

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
    let flags = "--closed --bind 127.0.0.1:0 --limit-loopback --stranger-idle 40 --log error";
    let mut deployment = Deployment::with(flags);
    let process = deployment.process_id();
    let to: SocketAddr = deployment
        .url
        .trim_start_matches("http://")
        .parse()
        .unwrap();
    let line = deployment.line().unwrap();
    let token = line
        .split_whitespace()
        .find_map(|word| word.strip_prefix("FEDAVG_JOIN_TOKEN="));
    let token = token.unwrap().to_string();
    let arguments = format!("--coordinator {} --in-memory --name honest", deployment.url);
    let mut command = binary(env!("CARGO_BIN_EXE_fedavg-worker"), &arguments);
    command.env("FEDAVG_JOIN_TOKEN", &token);
    let mut worker = Process::start(&mut command);
    worker.err.until("registered");
    // The first one also reads the data.
    job(&deployment);
    let alone = job(&deployment);
    let (quiet_memory, quiet_descriptors) = (memory(process, "VmRSS"), descriptors(process));

    for (bytes, allowed) in tricks() {
        let told = status(&answer([127, 0, 2, 1], to, &bytes));
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
    let beside = thread::scope(|scope| {
        for (index, shown) in shown_tokens.iter().enumerate() {
            let (is_over, sent) = (&is_over, &sent);
            scope.spawn(move || {
                let from = [127, 0, 3, index as u8 + 1];
                let headers = format!("authorization: Bearer {shown}\r\ncontent-type: application/json\r\ncontent-length: 2\r\n");
                let mut bytes = request("POST /api/v1/workers", &headers);
                bytes.extend_from_slice(b"{}");
                while !is_over.load(Ordering::Relaxed) {
                    let told = status(&answer(from, to, &bytes));
                    assert!([0, 400, 401, 422, 429, 503].contains(&told), "{told}");
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let beside = job(&deployment);
        is_over.store(true, Ordering::Relaxed);
        beside
    });
    let (peak, most_descriptors) = (memory(process, "VmHWM"), descriptors(process));
    let mib = |kib: u64| kib >> 10;
    println!(
        "alone {alone:?}, beside {} connections and {} registrations {beside:?}; memory {} MiB, at most {} MiB; descriptors {quiet_descriptors}, then {most_descriptors}",
        idle.len(),
        sent.load(Ordering::Relaxed),
        mib(quiet_memory),
        mib(peak),
    );
    assert!(
        beside <= alone + Duration::from_secs(1),
        "{alone:?}, {beside:?}"
    );
    assert!(
        peak < quiet_memory + (400 << 10),
        "{quiet_memory} KiB, then {peak} KiB"
    );
    // The coordinator closes strangers that stay idle, while their side is open.
    let start = Instant::now();
    while descriptors(process) > quiet_descriptors + 64 {
        assert!(
            start.elapsed() < Duration::from_secs(120),
            "{}",
            descriptors(process)
        );
        thread::sleep(Duration::from_millis(50));
    }
    drop(idle);
    job(&deployment);
}

/// A worker that got in sends reports for rounds that have closed, and for clients of another one.
fn reports_that_are_not_its_own(to: SocketAddr, join_token: &str) {
    let from = [127, 0, 2, 2];
    let body = r#"{"protocol":2,"name":"attacker","datasets":[]}"#;
    let headers = format!(
        "authorization: Bearer {join_token}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
        body.len()
    );
    let mut bytes = request("POST /api/v1/workers", &headers);
    bytes.extend_from_slice(body.as_bytes());
    let registered = answer(from, to, &bytes);
    assert_eq!(status(&registered), 201, "{registered}");
    let (_, json) = registered.split_once("\r\n\r\n").unwrap();
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
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
        let told = status(&answer(
            from,
            to,
            &request(&format!("PUT {path}"), &headers),
        ));
        let allowed: &[u16] = if other.is_some() {
            &[401, 403]
        } else {
            &[403, 404, 409, 410]
        };
        assert!(allowed.contains(&told), "{told}: {path}");
    }
    let headers = format!("authorization: Bearer {token}\r\n");
    let leaves = request(&format!("DELETE /api/v1/workers/{worker}"), &headers);
    assert_eq!(status(&answer(from, to, &leaves)), 204);
}
