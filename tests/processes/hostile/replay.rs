//! Reports that were accepted, sent again as they were: after their round, by others, and after their job.

use std::net::SocketAddr;

use fedavg::{ids::RoundId, round::JobEvent};
use serde_json::Value;

use super::{
    super::proxy::Proxy,
    beside::repeated_while,
    intruder::Intruder,
    victim::Victim,
    wire::{Answer, answer},
};

/// The job that is recorded; its number is the third, after two that are measured.
const JOB: &str = "--clients 2 --goal 2 --min-updates 2 --rounds 100000 --encoding f16";
const NUMBER: u64 = 3;

/// The bytes of the first round's report of client 0, as they went to the coordinator.
fn recorded(proxy: &Proxy) -> Option<Vec<u8>> {
    let line = format!("PUT /api/v1/jobs/{NUMBER}/rounds/1/reports/0 HTTP/1.1\r\n");
    for sent in proxy.sent() {
        let Some(start) = find(&sent, line.as_bytes()) else {
            continue;
        };
        let request = &sent[start..];
        let head = find(request, b"\r\n\r\n")? + 4;
        let text = String::from_utf8_lossy(&request[..head]).to_lowercase();
        let (_, length) = text.split_once("\r\ncontent-length: ")?;
        let length: usize = length.split("\r\n").next()?.parse().ok()?;
        return Some(request.get(..head + length)?.to_vec());
    }
    None
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

/// The request, with these values in the place of its headers of these names, and the connection's end after it.
fn with_headers(request: &[u8], headers: &[(&str, &str)]) -> Vec<u8> {
    let head = find(request, b"\r\n\r\n").unwrap();
    let text = String::from_utf8(request[..head].to_vec()).unwrap();
    let mut lines: Vec<String> = text.split("\r\n").map(str::to_string).collect();
    for (name, value) in headers {
        let prefix = format!("{name}: ");
        let line = lines
            .iter_mut()
            .find(|line| line.to_lowercase().starts_with(&prefix));
        *line.unwrap() = format!("{prefix}{value}");
    }
    lines.push("connection: close".to_string());
    let mut bytes = lines.join("\r\n").into_bytes();
    bytes.extend_from_slice(&request[head..]);
    bytes
}

/// The job's model and its records.
fn state(victim: &Victim) -> (Vec<u8>, Value) {
    let model = victim.get(&format!("/jobs/{NUMBER}/models/latest"));
    assert_eq!(model.status(), 200, "{model:?}");
    let records = victim.get(&format!("/jobs/{NUMBER}/rounds"));
    assert_eq!(records.status(), 200, "{records:?}");
    (model.body, records.json())
}

/// What the coordinator says to a replay by its sender, and by another worker.
fn replayed(to: SocketAddr, report: &[u8], other: &Intruder) -> [Answer; 2] {
    let own = with_headers(report, &[]);
    let number = other.worker.to_string();
    let bearer = format!("Bearer {}", other.token);
    let others = with_headers(
        report,
        &[("authorization", &bearer), ("fedavg-worker", &number)],
    );
    // The sender's token under the number of another worker, too.
    let mixed = with_headers(report, &[("fedavg-worker", &number)]);
    let told = answer(other.from, to, &mixed);
    assert!([401, 403].contains(&told.status()), "{told:?}");
    [own, others].map(|bytes| answer(other.from, to, &bytes))
}

/// Whether these answers to a sender and to another worker are those of a round that has closed.
fn are_of_a_closed_round([own, others]: [Answer; 2]) {
    let late = (409, "late".to_string());
    // It was accepted, and its sender is told so for as long as the round is remembered.
    assert!(own.status() == 204 || own.problem() == late, "{own:?}");
    // The client is the first one's still, or the round is over for everybody.
    let not_leased = (409, "not_leased".to_string());
    assert!([late, not_leased].contains(&others.problem()), "{others:?}");
}

#[test]
fn a_report_that_is_sent_again_changes_nothing() {
    let mut victim = Victim::start("");
    let proxy = Proxy::start(&victim.deployment.url);
    victim.stop_worker();
    victim.start_worker_at(&proxy.url);
    let job = victim.deployment.submit(JOB);
    assert_eq!(job.0, NUMBER);
    victim.deployment.watch(job).until(|entry| {
        let is_third =
            matches!(entry.event, JobEvent::RoundCommitted { round, .. } if round == RoundId(3));
        is_third.then_some(())
    });
    let paused = victim.deployment.operator(&format!("pause {job}"));
    assert_eq!(paused.code, Some(0), "{paused:?}");
    // The open round goes on to its end.
    victim.until("the pause", || {
        victim.get(&format!("/jobs/{job}")).json()["phase"] == "paused"
    });
    let report = recorded(&proxy).expect("the report of the first round");
    let other = Intruder::join(&victim, [127, 0, 2, 1], "intruder");
    let before = state(&victim);
    for _ in 0..20 {
        are_of_a_closed_round(replayed(victim.to, &report, &other));
    }
    assert!(state(&victim) == before, "a replay changed the job");

    let ended = victim.deployment.operator(&format!("cancel {job}"));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let before = state(&victim);
    let to = victim.to;
    let count = repeated_while(
        || are_of_a_closed_round(replayed(to, &report, &other)),
        || victim.withstands("replays of a report, one after the other", 64),
    );
    println!("{} replays", 3 * count);
    assert!(state(&victim) == before, "a replay changed an ended job");
}
