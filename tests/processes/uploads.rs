//! Links that break in the midst of an upload, and coordinators that are killed there: the rest is sent, and nothing is sent twice.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Instant,
};

use fedavg::round::JobEvent;

use super::{
    deployment::{Deployment, binary},
    process::{LIMIT, Process},
    proxy::Proxy,
    reproducible::model,
};

/// Parameters of the model: a report of 16 MB.
const PARAMETERS: usize = 4_000_000;

/// Where the upload stops: far enough that some of it has been noted, far enough from the end.
const STOP: usize = 7_000_000;

const JOB: &str = "--model noop --dataset noop --clients 1 --goal 1 --min-updates 1 --rounds 2 --evaluation never";

/// How an upload breaks.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Break {
    /// The connection is reset.
    Cut,
    /// The worker's end is, and the coordinator does not learn of it.
    HalfDead,
    /// The coordinator is killed, and another one goes on with its state.
    Killed,
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    // A folder may go while it is read.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// Waits for what a process is about to do on the disk.
fn until(what: &str, done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < LIMIT, "not in time: {what}");
        thread::yield_now();
    }
}

/// How many notes of an upload a file has: each is of one megabyte more.
fn notes_in(file: &Path) -> usize {
    let bytes = fs::read(file).unwrap_or_default();
    let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
    let (Some(line), Some(rest)) = (lines.next(), lines.next()) else {
        return 0;
    };
    let head: serde_json::Value = serde_json::from_slice(line).unwrap_or_default();
    let header = head["header"].as_u64().unwrap_or(u64::MAX) as usize;
    rest.len().saturating_sub(header) / 12
}

/// The head of a request that names a report.
struct Head(String);

impl Head {
    fn number(&self, header: &str) -> Option<usize> {
        let found = self.0.split(&format!("\r\n{header}: ")).nth(1)?;
        found.split("\r\n").next()?.parse().ok()
    }
}

/// The requests about the report of the first round that went over the link, by method.
fn requests(proxy: &Proxy, method: &str) -> Vec<Head> {
    let line = format!("{method} /api/v1/jobs/1/rounds/1/reports/0 HTTP/1.1\r\n");
    let mut heads = Vec::new();
    for bytes in proxy.sent() {
        // Values are no text, and a head is ASCII.
        let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
        for request in text.split(&line).skip(1) {
            let head = request.split("\r\n\r\n").next().unwrap_or_default();
            heads.push(Head(format!("\r\n{}", head.to_lowercase())));
        }
    }
    heads
}

/// The part of a broken upload belongs to what the next coordinator goes on with.
fn nothing_is_left_over(state: &Path) {
    let path = env!("CARGO_BIN_EXE_fedavg-coordinator");
    let arguments = format!("state check {}", state.display());
    let checked = Process::start(&mut binary(path, &arguments)).finish();
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(!checked.out.contains("nothing refers to"), "{checked:?}");
}

/// The model of the job, and how its bytes came.
fn run(how: Break) -> Vec<u8> {
    let rehearse = format!("--rehearse {PARAMETERS}");
    let mut deployment = Deployment::with(&format!("--bind 127.0.0.1:0 {rehearse}"));
    let proxy = Proxy::start(&deployment.url);
    let arguments = format!(
        "--name far --in-memory {rehearse} --coordinator {}",
        proxy.url
    );
    let path = env!("CARGO_BIN_EXE_fedavg-worker");
    let mut worker = Process::start(&mut binary(path, &arguments));
    worker.err.until("registered");
    proxy.hold_after(STOP);
    let job = deployment.submit(JOB);
    proxy.wait_until_held();
    let spool = deployment.state().join("spool");
    until("notes of the upload", || {
        files(&spool).iter().any(|file| notes_in(file) >= 3)
    });
    match how {
        Break::Cut => proxy.cut(),
        Break::HalfDead => proxy.cut_near_ends(),
        Break::Killed => {
            deployment = deployment.restart(&rehearse, nothing_is_left_over);
            proxy.cut();
        }
    }
    let (log, code) = deployment.watch(job).finish();
    assert_eq!(code, Some(0), "{how:?}: {log:#?}");
    let accepted = log
        .iter()
        .filter(|entry| matches!(entry.event, JobEvent::ReportAccepted { .. }));
    assert_eq!(accepted.count(), 2, "{how:?}: {log:#?}");
    let abandoned = log
        .iter()
        .any(|entry| matches!(entry.event, JobEvent::RoundAbandoned { .. }));
    assert!(!abandoned, "{how:?}: {log:#?}");

    let whole = requests(&proxy, "PUT");
    assert_eq!(whole.len(), 1, "{how:?}: the report was sent again");
    let length = whole[0].number("content-length").unwrap();
    assert!(length > 4 * PARAMETERS);
    assert!(!requests(&proxy, "HEAD").is_empty(), "{how:?}");
    let rest = requests(&proxy, "PATCH");
    assert_eq!(rest.len(), 1, "{how:?}");
    let offset = rest[0].number("upload-offset").unwrap();
    // Of a killed one, what was noted last counts, which is a megabyte less at most.
    assert!(
        offset > 3 << 20 && offset < STOP + (1 << 20),
        "{how:?}: {offset}"
    );
    assert_eq!(
        rest[0].number("content-length"),
        Some(length - offset),
        "{how:?}"
    );
    until("an empty spool", || files(&spool).is_empty());

    let folder = tempfile::tempdir().unwrap();
    let results = format!("results {job} --output {}", folder.path().display());
    assert_eq!(deployment.operator(&results).code, Some(0));
    model(folder.path())
}

#[test]
fn only_the_rest_is_sent_after_a_break_and_the_model_is_the_same() {
    let expected = expected();
    for how in [Break::Cut, Break::HalfDead] {
        assert!(run(how) == expected, "{how:?} made another model");
    }
}

#[test]
fn a_coordinator_that_is_killed_in_the_midst_of_an_upload_gets_the_rest_alone() {
    assert!(run(Break::Killed) == expected());
}

/// The model without a break.
fn expected() -> Vec<u8> {
    let rehearse = format!("--rehearse {PARAMETERS}");
    let deployment = Deployment::with(&format!("--bind 127.0.0.1:0 {rehearse}"));
    let mut worker = deployment.start_worker(&format!("--name near --in-memory {rehearse}"));
    worker.err.until("registered");
    let job = deployment.submit(JOB);
    assert_eq!(deployment.watch(job).finish().1, Some(0));
    let folder = tempfile::tempdir().unwrap();
    let results = format!("results {job} --output {}", folder.path().display());
    assert_eq!(deployment.operator(&results).code, Some(0));
    model(folder.path())
}
