//! TLS and plain HTTP, as the three programs have them.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use super::{
    deployment::{Deployment, binary},
    process::{Finished, Process},
};

const COORDINATOR: &str = env!("CARGO_BIN_EXE_fedavg-coordinator");
const WORKER: &str = env!("CARGO_BIN_EXE_fedavg-worker");
const FEDAVG: &str = env!("CARGO_BIN_EXE_fedavg");

fn ended(command: &mut Command) -> Finished {
    Process::start(command).finish()
}

/// What follows `--fingerprint` in the line that tells how workers join.
fn fingerprint_in(line: &str) -> String {
    let (_, rest) = line.split_once(" --fingerprint ").unwrap();
    rest.split_whitespace().next().unwrap().to_string()
}

#[test]
fn a_job_over_tls_with_a_certificate_of_the_coordinators_own() {
    let token = "--heartbeat 0.2 --worker-expiry 2";
    let mut deployment = Deployment::with(&format!("--bind 127.0.0.1:0 --tls-self-signed {token}"));
    assert!(
        deployment.url.starts_with("https://127.0.0.1:"),
        "{}",
        deployment.url
    );
    let line = deployment.line().unwrap();
    let join = format!(
        "fedavg-worker --coordinator {} --fingerprint sha256:",
        deployment.url
    );
    assert!(line.contains(&join), "{line}");
    let fingerprint = fingerprint_in(&line);

    let file = deployment.state().join("tls.pem");
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let pinned = format!("--fingerprint {fingerprint}");
    let mut worker = deployment.start_worker(&format!("--name one {pinned}"));
    worker.err.until("registered");
    let job = "submit --model mlp --clients 2 --rounds 2 --min-workers 1 --watch";
    let submitted = deployment.operator(&format!("{job} {pinned}"));
    assert_eq!(submitted.code, Some(0), "{submitted:?}");

    // Without it, with another one, and without TLS. Each ends at once.
    let wrong = format!("sha256:{}", "0".repeat(64));
    let url = deployment.url.clone();
    let plain = url.replace("https://", "http://");
    for (flags, part) in [
        (format!("--coordinator {url}"), "fingerprint"),
        (
            format!("--coordinator {url} --fingerprint {wrong}"),
            &*fingerprint,
        ),
        (format!("--coordinator {plain}"), "use https://"),
    ] {
        for arguments in [
            binary(WORKER, &format!("{flags} --in-memory")),
            binary(FEDAVG, &format!("status {flags}")),
        ] {
            let mut arguments = arguments;
            let end = ended(&mut arguments);
            assert_eq!(end.code, Some(1), "{end:?}");
            assert!(end.err.contains(part), "{part}: {end:?}");
        }
    }
    let pinned_plain = binary(FEDAVG, &format!("status --coordinator {plain} {pinned}"));
    let mut pinned_plain = pinned_plain;
    assert_eq!(ended(&mut pinned_plain).code, Some(2));
    let mut by_variable = binary(FEDAVG, &format!("status --coordinator {url}"));
    by_variable.env("FEDAVG_FINGERPRINT", fingerprint.to_uppercase());
    let told = ended(&mut by_variable);
    assert_eq!(told.code, Some(0), "{told:?}");

    // It is the same after a restart, and the worker goes on.
    worker.err.skip();
    let address = url.trim_start_matches("https://").to_string();
    let state = deployment.state().to_path_buf();
    let again = format!(
        "--open --bind {address} --tls-self-signed {token} --state-dir {}",
        state.display()
    );
    let kept = fs::read(&file).unwrap();
    deployment.interrupt();
    let mut process = Process::start(&mut binary(COORDINATOR, &again));
    let line = process.out.until("join with");
    assert_eq!(fingerprint_in(&line), fingerprint);
    assert!(fs::read(&file).unwrap() == kept);
    let mut once_more = binary(FEDAVG, &format!("{job} --coordinator {url} {pinned}"));
    let told = ended(&mut once_more);
    assert_eq!(told.code, Some(0), "{told:?}");
    worker.interrupt();
    process.interrupt();
    let end = process.finish();
    let key: Vec<_> = std::str::from_utf8(&kept).unwrap().lines().collect();
    let secret = key[key.len() - 2];
    assert!(!end.err.contains(secret), "{end:?}");
}

#[test]
fn plain_http_between_machines_must_be_allowed() {
    for flags in [
        "--bind 0.0.0.0:0",
        "--bind [::]:0",
        "--bind 127.0.0.1:0 --advertise 203.0.113.7",
        "--bind 127.0.0.1:0 --advertise http://lab",
    ] {
        let arguments = format!("{flags} --in-memory");
        let end = ended(&mut binary(COORDINATOR, &arguments));
        assert_eq!(end.code, Some(2), "{end:?}");
        for part in ["plain HTTP", "--tls-self-signed", "--plain"] {
            assert!(end.err.contains(part), "{part}: {end:?}");
        }
        for (flag, variable) in [("--plain", ""), ("", "1"), ("", "true")] {
            let mut command = binary(COORDINATOR, &format!("{arguments} {flag}"));
            command.env("FEDAVG_PLAIN", variable);
            let mut process = Process::start(&mut command);
            process.out.until("listening on http://");
            let line = process.err.until("can read and change");
            assert!(line.contains("(--plain)"), "{line}");
            process.kill();
        }
    }
    // What encrypts needs no permission.
    for flags in [
        "--bind 127.0.0.1:0 --advertise 100.64.0.1",
        "--bind 127.0.0.1:0 --advertise lab.tailnet.ts.net",
        "--bind 127.0.0.1:0 --advertise https://lab",
        "--bind 0.0.0.0:0 --tls-self-signed",
    ] {
        let arguments = format!("{flags} --in-memory");
        let mut process = Process::start(&mut binary(COORDINATOR, &arguments));
        process.out.until("listening on http");
        process.kill();
    }
    for command in [
        binary(WORKER, "--coordinator http://192.0.2.1 --in-memory"),
        binary(FEDAVG, "status --coordinator 192.0.2.1:8000"),
    ] {
        let mut command = command;
        let end = ended(&mut command);
        assert_eq!(end.code, Some(2), "{end:?}");
        assert!(end.err.contains("plain HTTP to other machines"), "{end:?}");
    }
}

#[test]
fn flags_and_files_of_tls_that_do_not_fit_are_usage_errors() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.pem");
    fs::write(&empty, "").unwrap();
    let empty = empty.display();
    for flags in [
        "--tls-cert /nowhere".to_string(),
        "--tls-cert /nowhere --tls-key /nowhere".to_string(),
        format!("--tls-cert {empty} --tls-key {empty}"),
        format!("--tls-self-signed --tls-cert {empty} --tls-key {empty}"),
        format!("--tls-client-ca {empty}"),
        format!("--tls-self-signed --tls-client-ca {empty}"),
    ] {
        let end = ended(&mut binary(
            COORDINATOR,
            &format!("--bind 127.0.0.1:0 --in-memory {flags}"),
        ));
        assert_eq!(end.code, Some(2), "{flags}: {end:?}");
    }
    for flags in [
        "--fingerprint 12".to_string(),
        format!("--tls-ca {empty}"),
        "--tls-ca /nowhere".to_string(),
        format!("--tls-client-cert {empty}"),
        format!("--tls-client-cert {empty} --tls-client-key {empty}"),
    ] {
        let command = format!("status --coordinator https://127.0.0.1:1 {flags}");
        let end = ended(&mut binary(FEDAVG, &command));
        assert_eq!(end.code, Some(2), "{flags}: {end:?}");
    }
}
