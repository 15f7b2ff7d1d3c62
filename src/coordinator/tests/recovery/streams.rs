//! What the coordinator's own stream and those of jobs come to together: they need not end at the same moment.

use serde_json::Value;

use super::*;
use crate::{ids::Timestamp, store::journal::fact};

impl Home {
    /// Changes a fact of the coordinator, or copies it under another name.
    fn write_fact(&self, from: &str, to: &str, change: impl FnOnce(&mut Value)) {
        self.write_fact_of(Stream::Coordinator, from, to, change);
    }

    fn write_fact_of(&self, stream: Stream, from: &str, to: &str, change: impl FnOnce(&mut Value)) {
        let bytes = fact(&*self.journal, stream, from).unwrap().unwrap();
        let mut value: Value = serde_json::from_slice(&bytes).unwrap();
        change(&mut value);
        let streams = self.journal.streams().unwrap();
        let (_, position) = *streams.iter().find(|(found, _)| *found == stream).unwrap();
        let batch = Batch::default().fact(to, value.to_string().into_bytes());
        self.journal.append(stream, position, batch);
    }
}

/// The workers that a job's machine takes to be there.
fn known(lab: &Lab, job: JobId) -> Vec<u64> {
    let state = lab.coordinator.state();
    let machine = state.jobs[&job].machine.as_ref().unwrap();
    machine.workers().iter().map(|worker| worker.0).collect()
}

#[tokio::test]
async fn a_worker_whose_registration_was_the_last_that_was_written_is_known_to_the_jobs() {
    let home = Home::new();
    let lab = home.start().await;
    lab.worker("a").await;
    let job = submit(&lab).await;
    kill(lab).await;
    home.write_fact("worker/1", "worker/2", |_| ());
    home.write_fact("coordinator", "coordinator", |fact| {
        fact["last_worker"] = 2.into();
    });
    let lab = home.start().await;
    assert_eq!(known(&lab, job), [1, 2]);
}

#[tokio::test]
async fn a_worker_whose_leaving_was_the_last_that_was_written_holds_no_clients() {
    let home = Home::new();
    let lab = home.start().await;
    let (_first, second) = (lab.worker("a").await, lab.worker("b").await);
    let job = submit(&lab).await;
    kill(lab).await;
    home.write_fact("worker/1", "worker/1", |fact| fact["state"] = "left".into());
    let lab = home.start().await;
    assert_eq!(known(&lab, job), [2]);
    // It has both clients.
    finish(&lab, &[&second], job).await;
}

#[tokio::test]
async fn a_worker_that_registered_long_ago_is_not_lost_by_a_restart() {
    let home = Home::new();
    let lab = home.start().await;
    lab.worker("a").await;
    let now = lab.coordinator.now();
    kill(lab).await;
    home.journal.note_time(Timestamp(now.0 + 7_200_000));
    let lab = home.start().await;
    lab.coordinator.tick();
    assert_eq!(lab.coordinator.state().roster.live_count(), 1);
}

#[tokio::test]
async fn the_number_of_a_worker_that_is_not_remembered_is_not_given_again() {
    let home = Home::new();
    let lab = home.start().await;
    lab.worker("a").await;
    kill(lab).await;
    // As if six others had come and been forgotten.
    home.write_fact("coordinator", "coordinator", |fact| {
        fact["last_worker"] = 7.into();
    });
    let lab = home.start().await;
    assert_eq!(lab.worker("b").await.worker.0, 8);
}

#[tokio::test]
async fn requests_of_two_processes_never_have_the_same_number() {
    let home = Home::new();
    let lab = home.start().await;
    let worker = lab.worker("a").await;
    submit(&lab).await;
    lab.poll(&worker, vec![]).await;
    let last = lab.coordinator.state().last_request;
    kill(lab).await;
    let lab = home.start().await;
    assert!(lab.coordinator.state().next_request() > last);
}

#[tokio::test]
async fn of_two_stored_reports_of_a_client_the_accepted_one_stays() {
    let home = Home::new();
    let lab = home.start().await;
    let worker = lab.worker("a").await;
    submit(&lab).await;
    let task = lab.poll(&worker, vec![]).await;
    assert_eq!(lab.report(&worker, &task).await.0, 204);
    kill(lab).await;
    let reports = || {
        let mut files = home.files();
        files.retain(|file| file.ends_with(".report"));
        files
    };
    let accepted = reports();
    // Whole, and without a verdict: the process ended between the two.
    let (start, _) = accepted[0].rsplit_once('-').unwrap();
    let other = home.root.path().join(format!("{start}-1.report"));
    std::fs::copy(home.root.path().join(&accepted[0]), other).unwrap();
    assert_eq!(reports().len(), 2);
    let _lab = home.start().await;
    assert_eq!(reports(), accepted);
}

#[tokio::test]
async fn jobs_of_the_queue_start_with_the_next_process_if_there_is_a_place_for_them() {
    let home = Home::new();
    let running = |most| {
        let mut config = CoordinatorConfig::default();
        config.jobs.max_running = most;
        config
    };
    let lab = home.start_with(running(1)).await;
    let (_first, second) = (submit(&lab).await, submit(&lab).await);
    let status = lab.coordinator.job(&HERE, second).await.unwrap();
    assert_eq!(status.phase, "queued");
    kill(lab).await;
    let lab = home.start_with(running(2)).await;
    let status = lab.coordinator.job(&HERE, second).await.unwrap();
    assert_eq!(status.phase, "waiting");
}

#[tokio::test]
async fn the_dealt_data_is_the_same() {
    let home = Home::new();
    let lab = home.start().await;
    let worker = lab.worker("a").await;
    let job = submit(&lab).await;
    lab.poll(&worker, vec![]).await;
    let fingerprint = |lab: &Lab| lab.coordinator.state().jobs[&job].fingerprint.clone();
    let partitions = |lab: &Lab| format!("{:?}", lab.coordinator.state().jobs[&job].partitions);
    let (data, dealt) = (fingerprint(&lab), partitions(&lab));
    assert!(!data.is_empty() && dealt.len() > 10);
    kill(lab).await;
    // As if it had been dealt seven times, to workers with data of their own.
    home.write_fact_of(Stream::Job(job), "data", "data", |fact| {
        fact["generation"] = 7.into();
        fact["owners"] = serde_json::json!(["clinic"]);
    });
    let lab = home.start().await;
    assert_eq!((fingerprint(&lab), partitions(&lab)), (data, dealt));
    let task = lab.poll(&worker, vec![]).await;
    let crate::protocol::TaskWork::Train { generation, .. } = task.work else {
        panic!("{task:?}");
    };
    assert_eq!(generation, 7);
    assert!(lab.coordinator.state().jobs[&job].owners.contains("clinic"));
}

#[tokio::test]
async fn a_model_that_has_changed_ends_its_job_and_is_named() {
    let home = Home::new();
    let lab = home.start().await;
    let job = submit(&lab).await;
    kill(lab).await;
    let [model] = &home.files()[..] else {
        panic!("{:?}", home.files());
    };
    let path = home.root.path().join(model);
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let lab = home.start().await;
    let summary = lab.coordinator.job(&HERE, job).await.unwrap();
    assert_eq!(summary.phase, "failed");
    assert!(summary.detail.contains(model), "{}", summary.detail);
}
