//! A coordinator that stands still, one that is started twice, and one that is started again and again.

use std::{process::Command, thread::sleep, time::Duration};

use super::{binaries::binary, checks, plan::JobPlan, process::Process, site::Site};

#[test]
fn a_coordinator_that_was_stopped_for_seconds_goes_on_with_its_workers() {
    let folder = tempfile::tempdir().unwrap();
    // Stopped for longer than its workers may be silent: it was not them who were away.
    let mut site = Site::start(folder.path(), 2, 1);
    site.add_workers(2);
    site.registered();
    let plan = JobPlan::new("top_k:0.05", 4, 4, 20, 4, 3);
    let job = site.submit(&plan, 2);
    let watch = site.watch(job);
    site.coordinator.err.until("round committed");
    site.coordinator.signal("-STOP");
    sleep(Duration::from_secs(4));
    site.coordinator.signal("-CONT");
    let seen = checks::seen(watch);
    checks::results(&site, job, &plan, &seen);
    site.stop();
    checks::left_behind(folder.path(), &[(job, &plan)]);
}

#[test]
fn a_second_coordinator_over_the_same_folder_is_refused_and_the_first_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut site = Site::start(folder.path(), 2, 1);
    site.add_workers(1);
    site.registered();
    let plan = JobPlan::new("f32", 2, 2, 12, 4, 3);
    let job = site.submit(&plan, 1);
    let watch = site.watch(job);
    let mut second = binary(
        env!("CARGO_BIN_EXE_fedavg-coordinator"),
        "--bind 127.0.0.1:0",
    );
    let second: &mut Command = second.arg("--state-dir").arg(site.state());
    let refused = Process::start(second).finish();
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.out.is_empty(), "{refused:?}");
    assert_eq!(refused.err.lines().count(), 1, "{refused:?}");
    let state = site.state();
    for part in [
        state.to_str().unwrap(),
        "--state-dir",
        "another coordinator",
    ] {
        assert!(refused.err.contains(part), "{part}: {refused:?}");
    }
    let seen = checks::seen(watch);
    checks::results(&site, job, &plan, &seen);
    site.stop();
    checks::left_behind(folder.path(), &[(job, &plan)]);
}

#[test]
fn restarts_in_a_row_without_work_between_them_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut site = Site::start(folder.path(), 600, 1);
    site.add_workers(1);
    site.registered();
    let plan = JobPlan::new("top_k:0.05", 3, 3, 12, 4, 3);
    let job = site.submit(&plan, 1);
    let watch = site.watch(job);
    site.coordinator.err.until("round committed");
    // Without its worker nothing can happen.
    site.workers[0].process.signal("-STOP");
    for _ in 0..3 {
        site.restart_coordinator(|_, _| ());
        site.listens();
    }
    site.workers[0].process.signal("-CONT");
    let seen = checks::seen(watch);
    checks::results(&site, job, &plan, &seen);
    site.stop();
    checks::left_behind(folder.path(), &[(job, &plan)]);
}
