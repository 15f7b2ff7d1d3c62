use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::protocol::JobSummary;

/// A coordinator whose place another one takes while its events are read: job 1 is then another job, and has ended.
#[derive(Default)]
struct Replaced {
    streams: AtomicUsize,
}

impl Replaced {
    fn is_another(&self) -> bool {
        self.streams.load(Ordering::Relaxed) > 0
    }
}

fn now<'a, T: Send + 'a>(answer: T) -> Answer<'a, T> {
    Box::pin(std::future::ready(Ok(answer)))
}

impl Operator for Replaced {
    fn own_access<'a>(&'a self, _: &'a Caller) -> Answer<'a, OwnAccess> {
        unreachable!()
    }

    fn authorize<'a>(&'a self, _: &'a Caller, _: Scope) -> Answer<'a, ()> {
        now(())
    }

    fn submit_once<'a>(&'a self, _: &'a Caller, _: Submission) -> Answer<'a, JobSummary> {
        unreachable!()
    }

    fn jobs_page<'a>(
        &'a self,
        _: &'a Caller,
        _: JobId,
        _: usize,
    ) -> Answer<'a, Page<JobSummary, JobId>> {
        unreachable!()
    }

    fn job<'a>(&'a self, _: &'a Caller, job: JobId) -> Answer<'a, JobSummary> {
        let outcome = if self.is_another() {
            r#"{"outcome":"completed"}"#
        } else {
            "null"
        };
        let spec = serde_json::to_string(&JobSpec::new("m", "d")).unwrap();
        let text = format!(
            r#"{{"job":{job},"spec":{spec},"phase":"collecting","detail":"","outcome":{outcome},"clients":2,"round":1,
                "version":0,"accepted":0,"goal":2,"parameters":1,"submitted":1,"ended":null}}"#
        );
        now(serde_json::from_str(&text).unwrap())
    }

    fn rounds_page<'a>(
        &'a self,
        _: &'a Caller,
        _: JobId,
        _: RoundId,
        _: usize,
    ) -> Answer<'a, Page<RoundRecord, RoundId>> {
        now(Page::new(Vec::new(), None))
    }

    fn cancel<'a>(&'a self, _: &'a Caller, _: JobId) -> Answer<'a, JobSummary> {
        unreachable!()
    }

    fn pause<'a>(&'a self, _: &'a Caller, _: JobId, _: bool) -> Answer<'a, JobSummary> {
        unreachable!()
    }

    fn delete<'a>(&'a self, _: &'a Caller, _: JobId) -> Answer<'a, JobSummary> {
        unreachable!()
    }

    fn events<'a>(&'a self, _: &'a Caller, _: JobId, _: u64) -> Answer<'a, Events> {
        self.streams.fetch_add(1, Ordering::Relaxed);
        let ended: Events = Box::pin(stream::empty());
        now(ended)
    }

    fn workers_page<'a>(
        &'a self,
        _: &'a Caller,
        _: WorkerId,
        _: usize,
    ) -> Answer<'a, Page<WorkerSummary, WorkerId>> {
        unreachable!()
    }

    fn model_body<'a>(
        &'a self,
        _: &'a Caller,
        _: JobId,
        _: Option<ModelVersion>,
    ) -> Answer<'a, (ModelVersion, ModelBody)> {
        unreachable!()
    }

    fn health<'a>(&'a self) -> Answer<'a, Health> {
        let who = if self.is_another() { "b" } else { "a" };
        let text = format!(
            r#"{{"coordinator":"{who}","version":"1","protocol":2,"workers":0,"running":[],"queued":0}}"#
        );
        now(serde_json::from_str(&text).unwrap())
    }
}

fn id(text: &str) -> CoordinatorId {
    CoordinatorId(text.to_string())
}

#[tokio::test]
async fn who_waits_for_a_job_is_told_of_another_coordinator_and_not_of_its_job() {
    let caller = Caller::in_process();
    let operator = Replaced::default();
    let waited = operator.wait(&caller, JobId(1)).await;
    let error = waited.unwrap_err();
    assert!(
        matches!(&error, OperatorError::OtherCoordinator { expected, found } if *expected == id("a") && *found == id("b")),
        "{error:?}"
    );
    let operator = Replaced::default();
    let records: Vec<_> = operator
        .records(&caller, JobId(1), RoundId(0))
        .collect()
        .await;
    assert!(
        matches!(&records[..], [Err(OperatorError::OtherCoordinator { .. })]),
        "{records:?}"
    );
}

#[tokio::test]
async fn an_identity_is_checked_unless_there_is_none() {
    let operator = Replaced::default();
    for (expected, is_same) in [("a", true), ("b", false), ("", true)] {
        let checked = operator.check_coordinator(&id(expected)).await;
        assert_eq!(checked.is_ok(), is_same, "{expected:?}");
    }
}
