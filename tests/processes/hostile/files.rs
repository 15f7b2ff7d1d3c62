//! Safetensors files that claim too much: as the initial model of a submission, and as a report.

use std::{fmt::Write as _, io::Write as _, thread};

use super::{
    intruder::Intruder,
    victim::Victim,
    wire::{
        Answer, answer, connect, is_silent, model_headers, request, request_in_chunks, request_with,
    },
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

const SUBMIT: &str = "POST /api/v1/jobs";

/// Submits this initial model several times at once. Each is told this status and code, and this as the reason, whether its length is
/// announced or not.
fn refuses(victim: &Victim, model: &[u8], expected: (u16, &str), reason: &str) {
    let headers = model_headers(&victim.admin_token());
    for bytes in [
        request_with(SUBMIT, &headers, model),
        request_in_chunks(SUBMIT, &headers, model),
    ] {
        for told in answers(victim, &bytes) {
            let (status, code) = told.problem();
            assert_eq!((status, &*code), expected, "{told:?}");
            assert!(told.text().contains(reason), "{told:?}");
        }
    }
}

#[test]
fn an_initial_model_of_a_million_tensors_is_refused_before_its_header_is_read() {
    let victim = Victim::start("");
    let too_large = (413, "too_large");
    refuses(&victim, &a_million_tensors(), too_large, "--max-header");
    let endless = [&u64::MAX.to_le_bytes()[..], b"{}"].concat();
    refuses(&victim, &endless, too_large, "--max-header");
    victim.withstands("initial models of a million tensors, 8 at once", 64);
}

/// Four are read at once, each with a header of at most 128 MiB.
#[test]
fn headers_that_may_be_large_are_counted_without_being_kept() {
    let victim = Victim::start("--max-header 128MiB");
    let too_large = (413, "too_large");
    refuses(&victim, &a_million_tensors(), too_large, "--max-tensors");
    victim.withstands("the same with --max-header 128MiB", 4 * 128 + 64);
}

#[test]
fn an_initial_model_that_claims_gigabytes_takes_none() {
    let victim = Victim::start("");
    let claims = gigabytes("w");
    refuses(&victim, &claims, (422, "malformed"), "");
    // Those whose length has the gigabytes, too, are waited for.
    let length = claims.len() as u64 + GIGABYTES;
    let headers = model_headers(&victim.admin_token());
    let head = request(SUBMIT, &format!("{headers}content-length: {length}\r\n"));
    let mut waiting = Vec::new();
    for _ in 0..AT_ONCE {
        let mut stream = connect([127, 0, 2, 9], victim.to).unwrap();
        stream.write_all(&[&head[..], &claims].concat()).unwrap();
        waiting.push(stream);
    }
    victim.withstands("initial models that claim 4 GiB, 8 at once", 64);
    assert!(waiting.iter().all(is_silent));
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
            request_in_chunks(&line, &headers, body)
        } else {
            request_with(&line, &headers, body)
        };
        let told = answer(intruder.from, victim.to, &bytes);
        let (status, code) = allowed;
        assert_eq!(told.problem(), (status, code.to_string()), "{told:?}");
        // It is the verdict on this client's report.
        let again = answer(intruder.from, victim.to, &bytes);
        assert_eq!(again.problem(), told.problem(), "{again:?}");
    }
    victim.start_worker();
    victim.withstands("reports of a million tensors, and of 4 GiB", 128);
}
