//! Safetensors files that claim too much: as the initial model of a submission, and as a report.

use std::{fmt::Write as _, io::Write as _, thread};

use super::{
    intruder::Intruder,
    victim::Victim,
    wire::{Answer, answer, connect, model_headers, request, request_with},
};

/// How many of each are sent at once.
const AT_ONCE: usize = 8;

/// Bytes of values that a header claims.
const GIGABYTES: u64 = 4 << 30;

/// A file with this header, and nothing behind it.
fn file(header: &str) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes
}

/// A million tensors without a value.
fn a_million_tensors() -> Vec<u8> {
    let mut header = "{".to_string();
    for tensor in 0..1_000_000 {
        let comma = if tensor == 0 { "" } else { "," };
        write!(
            header,
            r#"{comma}"{tensor}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#
        )
        .unwrap();
    }
    header.push('}');
    file(&header)
}

/// One tensor of 4 GiB, of which nothing comes.
fn gigabytes(name: &str) -> Vec<u8> {
    let bytes = GIGABYTES;
    file(&format!(
        r#"{{"{name}":{{"dtype":"F32","shape":[{}],"data_offsets":[0,{bytes}]}}}}"#,
        bytes / 4
    ))
}

/// The same bytes in chunks, so that their length is not announced.
fn in_chunks(bytes: &[u8]) -> Vec<u8> {
    let mut chunks = Vec::new();
    for piece in bytes.chunks(1 << 20) {
        chunks.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        chunks.extend_from_slice(piece);
        chunks.extend_from_slice(b"\r\n");
    }
    chunks.extend_from_slice(b"0\r\n\r\n");
    chunks
}

/// The answers to these bytes, sent by several at once.
fn answers(victim: &Victim, bytes: &[u8]) -> Vec<Answer> {
    thread::scope(|scope| {
        let to = victim.to;
        let send = move || answer([127, 0, 2, 9], to, bytes);
        let senders: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(send)).collect();
        let told = senders.into_iter().map(|sender| sender.join().unwrap());
        told.collect()
    })
}

#[test]
fn initial_models_that_claim_too_much_are_refused_with_what_is_too_much() {
    let million = a_million_tensors();
    let endless = [&u64::MAX.to_le_bytes()[..], b"{}"].concat();
    for (flags, cases) in [
        (
            "",
            vec![
                (&million, 413, "too_large", "--max-header"),
                (&endless, 413, "too_large", "--max-header"),
            ],
        ),
        (
            "--max-header 128MiB",
            vec![(&million, 413, "too_large", "--max-tensors")],
        ),
    ] {
        let victim = Victim::start(flags);
        let headers = model_headers(&victim.admin_token());
        let chunked = format!("{headers}transfer-encoding: chunked\r\n");
        for (body, status, code, said) in cases {
            let with_length = request_with("POST /api/v1/jobs", &headers, body);
            let without = [request("POST /api/v1/jobs", &chunked), in_chunks(body)].concat();
            for bytes in [with_length, without] {
                for told in answers(&victim, &bytes) {
                    assert_eq!(told.problem(), (status, code.to_string()), "{told:?}");
                    assert!(told.text().contains(said), "{told:?}");
                }
            }
        }
        // Gigabytes that the header alone announces, and then those that the length of the body announces, too.
        let claims = gigabytes("w");
        let short = request_with("POST /api/v1/jobs", &headers, &claims);
        let ended = [request("POST /api/v1/jobs", &chunked), in_chunks(&claims)].concat();
        for bytes in [short, ended] {
            for told in answers(&victim, &bytes) {
                assert_eq!(told.problem(), (422, "malformed".to_string()), "{told:?}");
            }
        }
        let length = claims.len() as u64 + GIGABYTES;
        let head = request(
            "POST /api/v1/jobs",
            &format!("{headers}content-length: {length}\r\n"),
        );
        let mut waiting = Vec::new();
        for _ in 0..AT_ONCE {
            let mut stream = connect([127, 0, 2, 9], victim.to).unwrap();
            stream.write_all(&[&head[..], &claims].concat()).unwrap();
            waiting.push(stream);
        }
        // Four are read at once, each with a header of at most --max-header.
        let most = if flags.is_empty() { 128 } else { 640 };
        let attack = format!("{AT_ONCE} initial models of a million tensors at once {flags}");
        victim.withstands(&attack, most);
    }
}

#[test]
fn reports_that_claim_too_much_are_refused_and_end_their_clients_round_alone() {
    let mut victim = Victim::start("--quarantine-after 1000000");
    victim.stop_worker();
    let intruder = Intruder::join(&victim, [127, 0, 2, 1], "intruder");
    victim
        .deployment
        .submit("--clients 8 --goal 8 --min-updates 1 --rounds 1 --round-timeout 300");
    let tasks = intruder.tasks(8);
    let million = a_million_tensors();
    let endless = [&u64::MAX.to_le_bytes()[..], b"{}"].concat();
    let claims = gigabytes("delta/w");
    for (task, body, is_chunked, allowed) in [
        (&tasks[0], &million, false, (413, "too_large")),
        (&tasks[1], &million, true, (422, "malformed")),
        (&tasks[2], &endless, false, (422, "malformed")),
        (&tasks[3], &claims, false, (422, "malformed")),
        (&tasks[4], &claims, true, (422, "malformed")),
    ] {
        let (line, headers) = intruder.report(task);
        let bytes = if is_chunked {
            let headers = format!("{headers}transfer-encoding: chunked\r\n");
            [request(&line, &headers), in_chunks(body)].concat()
        } else {
            request_with(&line, &headers, body)
        };
        let told = answer(intruder.from, victim.to, &bytes);
        let (status, code) = allowed;
        assert_eq!(told.problem(), (status, code.to_string()), "{told:?}");
        // The same once more has the same verdict, or another one that is no better.
        let again = answer(intruder.from, victim.to, &bytes);
        assert!(again.status() >= 400, "{again:?}");
    }
    victim.start_worker();
    victim.withstands("reports of a million tensors, and of 4 GiB", 128);
}
