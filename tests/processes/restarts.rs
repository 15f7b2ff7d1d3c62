//! Workers that are killed and started again, and coordinators that others take the place of.

use std::{
    fs,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use fedavg::{ids::Timestamp, protocol::WorkerSummary, round::JobEvent, telemetry::parse_rounds};

use super::{
    deployment::{Deployment, Watch, binary, fedavg},
    process::Process,
    reproducible::model,
};

/// `top_k` leaves a residual of each client in the worker, and what a lost one would have added is in the model.
const JOB: &str = "--clients 4 --goal 4 --min-updates 4 --rounds 40 --local-epochs 8 --lr 0.1 --seed 7 --encoding top_k:0.05";

/// Waits for a round to be committed.
fn committed(watch: &mut Watch, wanted: u64) {
    watch.until(|entry| match entry.event {
        JobEvent::RoundCommitted { round, .. } if round.0 >= wanted => Some(()),
        _ => None,
    });
}

/// As the events' times: by this machine's clock.
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp(since.as_millis() as u64)
}

/// Whether a folder or one below it has a file whose name ends so.
fn has_file(folder: &Path, end: &str) -> bool {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_one = path.to_str().unwrap().ends_with(end);
        if is_one || path.is_dir() && has_file(&path, end) {
            return true;
        }
    }
    false
}

#[test]
fn a_worker_that_is_killed_and_started_again_is_the_same_and_the_model_too() {
    let deployment = Deployment::start();
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("workers");
    let arguments = format!("--name steadfast --slots 2 --state-dir {}", state.display());
    let mut worker = deployment.start_worker(&arguments);
    worker.err.until("registered");
    let job = deployment.submit(JOB);
    let mut watch = deployment.watch(job);
    let mut killed = Timestamp(0);
    for round in [5, 13, 21, 29] {
        // In the middle of a later round: between a task and its report, or while a state is written.
        committed(&mut watch, round);
        killed = now();
        worker.kill();
        worker = deployment.start_worker(&arguments);
        worker.err.until("goes on as the worker that it was");
    }
    let (log, code) = watch.finish();
    assert_eq!(code, Some(0), "{log:#?}");
    let reports = log.iter().filter(|entry| {
        entry.time > killed && matches!(entry.event, JobEvent::ReportAccepted { .. })
    });
    assert!(
        reports.count() > 0,
        "the job had ended before the last kill"
    );
    let workers: Vec<WorkerSummary> = deployment.ask("workers");
    assert_eq!(workers.len(), 1, "it registered again: {workers:#?}");

    let place = |run: &str| folder.path().join(run);
    let results = format!("results {job} --output {}", place("killed").display());
    assert_eq!(deployment.operator(&results).code, Some(0));
    let rounds = fs::read_to_string(place("killed").join("rounds.jsonl")).unwrap();
    for record in parse_rounds(&rounds).unwrap() {
        assert!(record.state_lost.is_empty(), "{record:?}");
    }
    let simulated = fedavg(&format!(
        "simulate {JOB} --output {}",
        place("undisturbed").display()
    ));
    assert_eq!(simulated.code, Some(0), "{simulated:?}");
    assert!(model(&place("killed")) == model(&place("undisturbed")));

    // What is kept of a job stays, since another one may go on from it; it goes when the job is forgotten and another one runs.
    // A job without residuals keeps nothing.
    assert!(has_file(&state, ".safetensors"));
    let other = deployment.operator("submit --clients 2 --rounds 2 --watch");
    assert_eq!(other.code, Some(0), "{other:?}");
    assert!(
        has_file(&state, ".safetensors"),
        "job {job} may be continued"
    );
    assert_eq!(deployment.operator(&format!("delete {job}")).code, Some(0));
    let next = deployment.operator("submit --clients 2 --rounds 2 --watch");
    assert_eq!(next.code, Some(0), "{next:?}");
    assert!(!has_file(&state, ".safetensors"));
    worker.interrupt();
    assert_eq!(worker.finish().code, Some(0));
    assert!(!has_file(&state, "registration.json"), "it has left");
}

#[test]
fn a_second_worker_of_a_name_has_another_one_and_data_of_ones_own_one_worker() {
    let deployment = Deployment::start();
    let _first = deployment.worker("lab");
    let mut second = deployment.start_worker("--name lab");
    second.err.until("this one is \"lab-2\"");
    second.err.until("registered");
    assert!(deployment.worker_id("lab-2") > deployment.worker_id("lab"));
    let local = deployment.start_worker("--name lab --local").finish();
    assert_eq!(local.code, Some(2), "{local:?}");
    assert!(local.err.contains("choose another name"), "{local:?}");
}

#[test]
fn a_worker_with_data_of_its_own_comes_back_at_once_after_it_was_killed() {
    // Its name is taken until the killed one is lost: only the token gets it back before.
    let deployment = Deployment::with("--bind 127.0.0.1:0");
    let mut worker = deployment.start_worker("--name clinic --local");
    worker.err.until("registered");
    let job = deployment.submit("--partition local --clients 1 --rounds 1000000");
    let mut watch = deployment.watch(job);
    committed(&mut watch, 1);
    worker.kill();
    let killed = now();
    let mut worker = deployment.start_worker("--name clinic --local");
    worker.err.until("goes on as the worker that it was");
    watch.until(|entry| match entry.event {
        JobEvent::ReportAccepted { .. } if entry.time > killed => Some(()),
        _ => None,
    });
}

#[test]
fn another_coordinator_at_the_same_address_is_noticed_by_who_works_and_who_watches() {
    let deployment = Deployment::start();
    let folder = tempfile::tempdir().unwrap();
    let mut worker = deployment.start_worker(&format!(
        "--name lab --state-dir {}",
        folder.path().display()
    ));
    worker.err.until("registered");
    let job = deployment.submit(&JOB.replace("--rounds 40", "--rounds 1000000"));
    let mut seen = deployment.watch(job);
    committed(&mut seen, 2);
    let url = deployment.url.clone();
    let arguments = format!("watch {job} --coordinator {url}");
    let mut watching = Process::start(&mut binary(env!("CARGO_BIN_EXE_fedavg"), &arguments));
    watching.err.until("version ");
    assert!(has_file(folder.path(), ".safetensors"));

    deployment.kill();
    let address = url.trim_start_matches("http://");
    let deployment = Deployment::with(&format!("--bind {address}"));
    // Its first job has the same number.
    assert_eq!(deployment.submit("--clients 2 --rounds 1000000"), job);
    let watching = watching.finish();
    assert_eq!(watching.code, Some(1), "{watching:?}");
    let last = watching.err.lines().last().unwrap();
    let told = format!(
        "error: the coordinator at {url} is another one than before: its job {job} is not the job that was watched"
    );
    assert_eq!(last, told);
    worker
        .err
        .until("the coordinator is another one than before: dropped what was kept");
    worker.err.until("registered");
    assert!(!has_file(folder.path(), ".safetensors"));
}
