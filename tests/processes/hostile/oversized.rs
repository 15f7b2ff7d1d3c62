//! Requests that are too large in any part of them.

use std::fs::File;

use serde_json::json;

use super::{
    super::deployment::fedavg,
    beside::repeated_while,
    intruder::Intruder,
    victim::Victim,
    wire::{answer, json_headers, request, request_in_chunks, request_with},
};

/// What is sent, and the statuses that may answer it.
struct Case {
    what: &'static str,
    bytes: Vec<u8>,
    allowed: &'static [u16],
}

fn case(what: &'static str, bytes: Vec<u8>, allowed: &'static [u16]) -> Case {
    Case {
        what,
        bytes,
        allowed,
    }
}

/// JSON of this many bytes that is read to its end.
fn spacious(bytes: usize) -> Vec<u8> {
    let mut json = vec![b' '; bytes];
    json[0] = b'{';
    json[bytes - 1] = b'}';
    json
}

/// Bodies of JSON that are larger than their limits, with and without a length.
fn bodies(admin: &str, join: &str, intruder: &Intruder) -> Vec<Case> {
    let worker = format!("/api/v1/workers/{}", intruder.worker);
    let mut cases = Vec::new();
    for (what, line, token, limit) in [
        (
            "a registration",
            "POST /api/v1/workers".to_string(),
            join,
            64 << 10,
        ),
        ("a job", "POST /api/v1/jobs".to_string(), admin, 1 << 20),
        ("a token", "POST /api/v1/tokens".to_string(), admin, 4 << 10),
        (
            "a poll",
            format!("POST {worker}/poll"),
            &intruder.token,
            1 << 20,
        ),
        (
            "a heartbeat",
            format!("POST {worker}/heartbeat"),
            &intruder.token,
            1 << 20,
        ),
    ] {
        let headers = json_headers(token);
        let body = spacious(limit + 1);
        cases.push(case(what, request_with(&line, &headers, &body), &[413]));
        cases.push(case(
            what,
            request_in_chunks(&line, &headers, &body),
            &[413],
        ));
        // Of a length that nobody would send.
        let claims = format!("{headers}content-length: {}\r\n", u64::MAX - 1);
        cases.push(case(what, request(&line, &claims), &[400, 413, 431]));
        // Brackets within brackets: a parser that recurses would have no stack left.
        let deep = [&b"{\"a\":"[..], &vec![b'['; limit - 100]].concat();
        cases.push(case(
            what,
            request_with(&line, &headers, &deep),
            &[400, 422],
        ));
    }
    cases
}

/// Names and lists within bodies.
fn fields(admin: &str, join: &str) -> Vec<Case> {
    let long = |length: usize| "n".repeat(length);
    let datasets = |count: usize| {
        let one =
            json!({ "name": "d", "fingerprint": "f", "train_examples": 1, "test_examples": 1 });
        vec![one; count]
    };
    let registers = |what, body: serde_json::Value| {
        let body = body.to_string();
        let headers = json_headers(join);
        let bytes = request_with("POST /api/v1/workers", &headers, body.as_bytes());
        case(what, bytes, &[422])
    };
    let makes = |what, body: serde_json::Value| {
        let body = body.to_string();
        let headers = json_headers(admin);
        let bytes = request_with("POST /api/v1/tokens", &headers, body.as_bytes());
        case(what, bytes, &[422])
    };
    let submits = |what, body: serde_json::Value| {
        let body = body.to_string();
        let headers = json_headers(admin);
        let bytes = request_with("POST /api/v1/jobs", &headers, body.as_bytes());
        case(what, bytes, &[422])
    };
    vec![
        registers(
            "a worker's name",
            json!({ "protocol": 2, "name": long(129), "datasets": [] }),
        ),
        registers(
            "a worker's long name",
            json!({ "protocol": 2, "name": long(60_000), "datasets": [] }),
        ),
        registers(
            "datasets",
            json!({ "protocol": 2, "name": "w", "datasets": datasets(65) }),
        ),
        registers(
            "a dataset's name",
            json!({ "protocol": 2, "name": "w", "datasets": [
            { "name": long(257), "fingerprint": "f", "train_examples": 1, "test_examples": 1 }] }),
        ),
        registers(
            "slots",
            json!({ "protocol": 2, "name": "w", "datasets": [], "slots": 1_000_000 }),
        ),
        registers(
            "capabilities",
            json!({ "protocol": 2, "name": "w", "datasets": [], "capabilities": vec!["c"; 65] }),
        ),
        makes(
            "a token's name",
            json!({ "name": long(65), "kind": "join" }),
        ),
        makes(
            "a token's long name",
            json!({ "name": long(3_000), "kind": "join" }),
        ),
        submits(
            "a job's model",
            json!({ "model": long(1_000_000), "dataset": "digits" }),
        ),
        submits(
            "a job's clients",
            json!({ "model": "mlp", "dataset": "digits", "clients": u32::MAX }),
        ),
        submits(
            "a job's rounds",
            json!({ "model": "mlp", "dataset": "digits", "limits": { "rounds": -1 } }),
        ),
    ]
}

/// Heads that are too large.
fn heads(admin: &str) -> Vec<Case> {
    let token = format!("authorization: Bearer {admin}\r\n");
    let query = |text: &str| format!("GET /api/v1/jobs?{text}");
    vec![
        case(
            "headers",
            request(
                "GET /api/v1/jobs",
                &format!("{token}{}", "x: y\r\n".repeat(1000)),
            ),
            &[400, 431],
        ),
        case(
            "a header's name",
            request(
                "GET /api/v1/jobs",
                &format!("{token}{}: y\r\n", "x".repeat(100_000)),
            ),
            &[400, 431],
        ),
        case(
            "a token",
            request(
                "GET /api/v1/jobs",
                &format!("authorization: Bearer {}\r\n", "t".repeat(100_000)),
            ),
            &[401, 429, 431],
        ),
        case(
            "a query's number",
            request(&query(&format!("after={}", "9".repeat(50_000))), &token),
            &[400, 414, 422, 431],
        ),
        case(
            "a query's parts",
            request(&query(&"limit=1&".repeat(6_000)), &token),
            &[400, 414, 422, 431],
        ),
        case(
            "a limit",
            request(&query("limit=18446744073709551615"), &token),
            &[200],
        ),
        case(
            "a limit beyond",
            request(&query("limit=18446744073709551616"), &token),
            &[400, 422],
        ),
        case(
            "a path",
            request(&format!("GET /api/v1/jobs/{}", "1".repeat(60_000)), &token),
            &[400, 404, 414, 422],
        ),
        case(
            "a job in a header",
            request_with(
                "POST /api/v1/jobs",
                &format!(
                    "{token}content-type: application/octet-stream\r\nfedavg-job: {{\"model\":\"{}\"}}\r\n",
                    "m".repeat(110_000)
                ),
                b"",
            ),
            &[400, 422, 431],
        ),
        case(
            "a range",
            request(
                "GET /api/v1/jobs/1/models/latest",
                &format!("{token}range: bytes={}\r\n", "0-0,".repeat(20_000)),
            ),
            &[200, 206, 416],
        ),
        case(
            "tags",
            request(
                "GET /api/v1/jobs/1/models/latest",
                &format!(
                    "{token}if-none-match: {}\"a\"\r\n",
                    "\"b\", ".repeat(15_000)
                ),
            ),
            &[200, 304, 400],
        ),
    ]
}

#[test]
fn what_is_too_large_is_refused_and_takes_no_memory() {
    let victim = Victim::start("");
    let admin = victim.admin_token();
    let intruder = Intruder::join(&victim, [127, 0, 2, 1], "intruder");
    let mut cases = bodies(&admin, &victim.join_token, &intruder);
    cases.extend(fields(&admin, &victim.join_token));
    cases.extend(heads(&admin));
    let to = victim.to;
    let send_all = || {
        for case in &cases {
            let told = answer([127, 0, 2, 2], to, &case.bytes);
            let status = told.status();
            assert!(case.allowed.contains(&status), "{}: {told:?}", case.what);
            // What is refused says why, in a few lines.
            assert!(status < 400 || told.body.len() < 4096, "{}", case.what);
        }
    };
    send_all();
    let count = repeated_while(send_all, || {
        victim.withstands("requests that are too large, one after the other", 64);
    });
    println!("{} requests", count * cases.len());
}

/// A file without an end would be read until there is no memory.
#[test]
fn a_job_file_that_is_too_large_is_refused_by_the_program_that_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("job.toml");
    File::create(&file).unwrap().set_len(1 << 40).unwrap();
    for path in [file.as_path(), "/dev/zero".as_ref()] {
        let told = fedavg(&format!(
            "submit --coordinator http://127.0.0.1:1 {}",
            path.display()
        ));
        assert_eq!(told.code, Some(2), "{told:?}");
        assert!(told.err.contains("and that is the most"), "{told:?}");
    }
}
