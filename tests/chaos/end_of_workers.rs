//! A worker that is killed and never comes back.

use std::fs;

use fedavg::{
    ids::{ClientId, JobId},
    protocol::LoggedEvent,
    round::JobEvent,
    telemetry::parse_rounds,
};

use super::{checks, plan::JobPlan, site::Site};

/// Kills one of two workers in the midst of a job, for good. What was watched of the job.
fn run(site: &mut Site, plan: &JobPlan) -> (JobId, Vec<LoggedEvent>) {
    site.add_workers(2);
    site.registered();
    let job = site.submit(plan, 2);
    let watch = site.watch(job);
    site.coordinator.err.until("round committed");
    site.coordinator.err.until("round committed");
    let worker = site.workers.remove(0);
    worker.process.kill();
    (job, checks::seen(watch))
}

/// The clients that went from one worker to another one during a round.
fn moved(log: &[LoggedEvent]) -> Vec<ClientId> {
    let mut moved = Vec::new();
    for entry in log {
        if let JobEvent::Leased {
            client,
            from: Some(_),
            to: Some(_),
        } = entry.event
        {
            moved.push(client);
        }
    }
    moved
}

#[test]
fn the_clients_of_a_worker_that_never_comes_back_go_to_the_other_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut site = Site::start(folder.path(), 2, 1);
    let plan = JobPlan::new("f32", 4, 4, 30, 4, 3);
    let (job, seen) = run(&mut site, &plan);
    assert_eq!(moved(&seen).len(), 2, "{seen:#?}");
    checks::results(&site, job, &plan, &seen);
    site.stop();
    checks::left_behind(folder.path(), &[(job, &plan)]);
}

#[test]
fn what_such_a_worker_kept_of_its_clients_is_lost_and_the_record_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut site = Site::start(folder.path(), 2, 1);
    let plan = JobPlan::new("top_k:0.05", 4, 4, 30, 4, 3);
    let (job, seen) = run(&mut site, &plan);
    let mut moved = moved(&seen);
    moved.sort();
    let place = folder.path().join(format!("job-{job}"));
    let results = site.operator(&format!("results {job} --output {}", place.display()));
    assert_eq!(results.code, Some(0), "{results:#?}");
    let rounds = fs::read_to_string(place.join("rounds.jsonl")).unwrap();
    let mut lost = Vec::new();
    for record in parse_rounds(&rounds).unwrap() {
        lost.extend(record.state_lost);
    }
    lost.sort();
    // Each once: from then on the other worker has its state.
    assert_eq!((moved.len(), &moved), (2, &lost), "{seen:#?}");
    site.stop();
    checks::left_behind(folder.path(), &[(job, &plan)]);
}
