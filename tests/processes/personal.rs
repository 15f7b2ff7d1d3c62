//! Personal and frozen tensors between processes: what goes over the wire, and what a killed worker goes on with.

use std::{fs, path::Path};

use fedavg::{protocol::RoundRecord, round::JobEvent, telemetry::parse_rounds};

use super::{
    deployment::{Deployment, fedavg},
    proxy::Proxy,
    reproducible::model,
};

/// Each client waits for all others, so that nothing depends on who is quicker.
const JOB: &str = "--clients 4 --goal 4 --min-updates 4 --local-epochs 8 --lr 0.1 --seed 7 --partition shard:3 --personal fc2.*";

/// Where this text is in some bytes.
fn find(bytes: &[u8], text: &str) -> Option<usize> {
    let mut windows = bytes.windows(text.len());
    windows.position(|window| window == text.as_bytes())
}

/// The bodies of the reports among what a worker sent over a connection.
fn reports(mut sent: &[u8]) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    while let Some(at) = find(sent, "/reports/") {
        sent = &sent[at..];
        let end = find(sent, "\r\n\r\n").expect("a head") + 4;
        let head = String::from_utf8_lossy(&sent[..end]).to_lowercase();
        let length = head
            .split("content-length: ")
            .nth(1)
            .and_then(|rest| rest.split("\r\n").next()?.parse::<usize>().ok())
            .expect("a length");
        bodies.push(sent[end..][..length].to_vec());
        sent = &sent[end + length..];
    }
    bodies
}

#[test]
fn no_byte_of_a_personal_or_frozen_tensor_leaves_a_worker() {
    let deployment = Deployment::start();
    let proxy = Proxy::start(&deployment.url);
    let mut worker = deployment.start_worker(&format!("--name lab --coordinator {}", proxy.url));
    worker.err.until("registered");
    let job = format!("submit {JOB} --rounds 3 --frozen fc1.bias --strategy scaffold --watch");
    let run = deployment.operator(&job);
    assert_eq!(run.code, Some(0), "{run:?}");
    worker.interrupt();
    assert_eq!(worker.finish().code, Some(0));

    let mut bodies = Vec::new();
    for sent in proxy.sent() {
        for name in ["fc2.", "fc1.bias"] {
            assert_eq!(find(&sent, name), None, "{name} left the worker");
        }
        bodies.extend(reports(&sent));
    }
    assert_eq!(bodies.len(), 3 * 4);
    for body in bodies {
        assert!(find(&body, "fc1.weight").is_some());
        let header = u64::from_le_bytes(body[..8].try_into().unwrap()) as usize;
        // The delta and the control variate of fc1.weight: 64 inputs, 128 outputs.
        assert_eq!(body.len(), 8 + header + 2 * 4 * 64 * 128);
    }
}

fn records(folder: &Path) -> Vec<RoundRecord> {
    let text = fs::read_to_string(folder.join("rounds.jsonl")).unwrap();
    parse_rounds(&text).unwrap()
}

#[test]
fn a_worker_that_is_killed_and_started_again_goes_on_with_its_clients_tensors() {
    // It is back before it is lost.
    let deployment = Deployment::with("--bind 127.0.0.1:0");
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("workers");
    let arguments = format!("--name steadfast --slots 2 --state-dir {}", state.display());
    let mut worker = deployment.start_worker(&arguments);
    worker.err.until("registered");
    let job = deployment.submit(&format!("{JOB} --rounds 24"));
    let mut watch = deployment.watch(job);
    for wanted in [5, 11, 17] {
        watch.until(|entry| match entry.event {
            JobEvent::RoundCommitted { round, .. } if round.0 >= wanted => Some(()),
            _ => None,
        });
        worker.kill();
        worker = deployment.start_worker(&arguments);
        worker.err.until("goes on as the worker that it was");
    }
    let (log, code) = watch.finish();
    assert_eq!(code, Some(0), "{log:#?}");
    let place = |run: &str| folder.path().join(run);
    let results = format!("results {job} --output {}", place("killed").display());
    assert_eq!(deployment.operator(&results).code, Some(0));
    let simulated = fedavg(&format!(
        "simulate {JOB} --rounds 24 --output {}",
        place("undisturbed").display()
    ));
    assert_eq!(simulated.code, Some(0), "{simulated:?}");
    assert!(model(&place("killed")) == model(&place("undisturbed")));
    let (killed, undisturbed) = (records(&place("killed")), records(&place("undisturbed")));
    assert_eq!(killed.len(), undisturbed.len());
    for (killed, undisturbed) in killed.iter().zip(&undisturbed) {
        assert!(killed.state_lost.is_empty(), "{killed:?}");
        assert!(killed.test_loss.is_some());
        // The loss is measured with each client's own tensors: they are the same bits, too.
        assert_eq!(
            killed.test_loss, undisturbed.test_loss,
            "round {}",
            killed.round
        );
        assert_eq!(killed.by_client, undisturbed.by_client);
    }
}
