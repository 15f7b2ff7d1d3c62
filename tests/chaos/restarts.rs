//! A coordinator that is started again and again.

use super::{checks, plan::JobPlan, site::Site};

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
