use std::path::Path;

use super::*;
use crate::{
    ids::{ClientId, JobId, RoundId},
    transport::{Request, Response},
    worker::memory::Kept,
};

/// Tells this identity, or can't.
struct Telling(Option<&'static str>);

impl Transport for Telling {
    async fn send(&self, _: Request) -> Result<Response, TransportError> {
        Err(TransportError::TimedOut(1))
    }

    async fn coordinator(&self) -> Result<Option<CoordinatorId>, TransportError> {
        Ok(self.0.map(|id| CoordinatorId(id.to_string())))
    }
}

async fn find(base: Option<&Path>, identity: Option<&'static str>) -> Result<Home, WorkerError> {
    let mut config = WorkerConfig::new("lab");
    config.state_dir = base.map(Path::to_path_buf);
    Home::find(&Telling(identity), &config, &Computing::default()).await
}

fn registered(coordinator: &str) -> Registered {
    let text = format!(
        r#"{{"worker":7,"coordinator":"{coordinator}","token":"t","heartbeat_ms":1,"poll_ms":1}}"#
    );
    serde_json::from_str(&text).unwrap()
}

/// Registers at this coordinator; whether the jobs that were open still are.
async fn register(home: &mut Home, base: Option<&Path>, coordinator: &str) -> bool {
    let mut config = WorkerConfig::new("lab");
    config.state_dir = base.map(Path::to_path_buf);
    let jobs = home.jobs.clone();
    let registration = Registration::new("lab");
    home.registered(&registration, &registered(coordinator), &config)
        .await
        .unwrap();
    Arc::ptr_eq(&jobs, &home.jobs)
}

#[tokio::test]
async fn without_a_folder_nothing_is_asked_or_written_and_jobs_are_one_coordinators() {
    let mut home = find(None, None).await.unwrap();
    assert!(home.folder.is_none() && home.registration().is_none());
    register(&mut home, None, "a").await;
    assert!(register(&mut home, None, "a").await);
    assert!(!register(&mut home, None, "b").await);
    // Coordinators of version 0.1 have no identity, and number their jobs from 1 each time.
    assert!(!register(&mut home, None, "").await);
    assert!(!register(&mut home, None, "").await);
}

#[tokio::test]
async fn another_coordinator_takes_the_state_of_the_one_before_with_it() {
    let base = tempfile::tempdir().unwrap();
    let path = Some(base.path());
    let mut home = find(path, Some("a")).await.unwrap();
    assert!(register(&mut home, path, "a").await);
    let folder = home.folder.clone().unwrap();
    folder.note_job(JobId(1));
    let files = folder.client(JobId(1), ClientId(0));
    files.write(None, RoundId(1), &Kept::default()).unwrap();
    drop(folder);
    assert!(register(&mut home, path, "a").await);
    assert_eq!(home.registration().unwrap().1, registered("a"));
    assert!(base.path().join("a/worker-lab/jobs/job-1").exists());
    assert!(!register(&mut home, path, "b").await);
    assert!(!base.path().join("a/worker-lab/jobs/job-1").exists());
    assert_eq!(home.registration().unwrap().1, registered("b"));
    drop(home);
    // Whoever starts later at the first one again has no token of it any more.
    assert!(
        find(path, Some("a"))
            .await
            .unwrap()
            .registration()
            .is_none()
    );
    assert!(
        find(path, Some("b"))
            .await
            .unwrap()
            .registration()
            .is_some()
    );
}

#[tokio::test]
async fn a_folder_needs_a_transport_that_tells_the_coordinators_identity() {
    let base = tempfile::tempdir().unwrap();
    let refused = find(Some(base.path()), None).await.err().unwrap();
    assert_eq!(refused, WorkerError::State(StateError::NoIdentity));
    // A coordinator of version 0.1 tells none: the worker works, and keeps nothing.
    let home = find(Some(base.path()), Some("")).await.unwrap();
    assert!(home.folder.is_none());
    assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
}
