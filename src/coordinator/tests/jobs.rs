//! The life of jobs: queued, without workers, without reports, cancelled.

use futures_util::StreamExt;

use super::*;
use crate::round::{JobEvent, Outcome};

#[tokio::test]
async fn a_queued_job_and_a_running_one_can_be_cancelled_and_an_ended_one_not() {
    let config = CoordinatorConfig {
        jobs: JobLimits {
            max_running: 1,
            ..JobLimits::default()
        },
        ..CoordinatorConfig::default()
    };
    let lab = Lab::open(config).await;
    let worker = lab.worker("only").await;
    let running = lab.submit(|_| {}).await;
    let queued = lab.submit(|_| {}).await;
    lab.poll(&worker, Vec::new()).await;
    assert_eq!(
        lab.coordinator.cancel(&HERE, queued).await.unwrap().phase,
        "cancelled"
    );
    assert_eq!(
        lab.coordinator.cancel(&HERE, running).await.unwrap().phase,
        "cancelled"
    );
    let again = lab.coordinator.cancel(&HERE, running).await.unwrap();
    assert_eq!(again.phase, "cancelled", "the same verdict");
    let third = lab.submit(|spec| spec.clients = Some(1)).await;
    let task = lab.poll(&worker, Vec::new()).await;
    assert_eq!(task.job, third, "the queue goes on");
    assert_eq!(lab.report(&worker, &task).await.0, 204);
    lab.finished(third).await;
    let refusal = refusal(lab.coordinator.cancel(&HERE, third).await);
    assert_eq!(refusal.kind, RefusalKind::Conflict);
}

#[tokio::test]
async fn jobs_that_were_cancelled_in_the_queue_are_not_remembered_for_ever() {
    let config = CoordinatorConfig {
        jobs: JobLimits {
            keep: 2,
            max_running: 1,
            ..JobLimits::default()
        },
        ..CoordinatorConfig::default()
    };
    let lab = Lab::open(config).await;
    let waiting = lab.submit(|_| {}).await;
    for _ in 0..5 {
        let queued = lab.submit(|_| {}).await;
        let cancelled = lab.coordinator.cancel(&HERE, queued).await.unwrap();
        assert_eq!(
            cancelled.phase, "cancelled",
            "the last to end is remembered"
        );
    }
    let jobs: Vec<_> = lab
        .coordinator
        .jobs(&HERE)
        .await
        .unwrap()
        .iter()
        .map(|job| job.job)
        .collect();
    assert_eq!(jobs, [waiting, JobId(5), JobId(6)]);
}

#[tokio::test]
async fn a_round_without_reports_is_abandoned_and_the_job_fails_with_that_reason() {
    let lab = Lab::open(CoordinatorConfig::default()).await;
    let worker = lab.worker("lazy").await;
    let job = lab
        .submit(|spec| {
            spec.limits.round_timeout = 1;
            spec.limits.max_attempts = 2;
        })
        .await;
    lab.poll(&worker, Vec::new()).await;
    let (summary, rounds, _) = lab.finished(job).await;
    let Some(Outcome::Failed { reason }) = summary.outcome else {
        panic!("{summary:?}")
    };
    assert!(
        reason.contains("the deadline has passed (reports accepted: 0, needed: 1)"),
        "{reason}"
    );
    assert_eq!(
        rounds
            .iter()
            .filter(|record| record.abandoned.is_some())
            .count(),
        2
    );
}

#[tokio::test]
async fn leases_of_a_worker_that_left_move_within_the_round_and_the_tasks_with_them() {
    let lab = Lab::open(CoordinatorConfig::default()).await;
    let (leaver, stayer) = (lab.worker("leaver").await, lab.worker("stayer").await);
    let job = lab.submit(|_| {}).await;
    let theirs = lab.poll(&leaver, Vec::new()).await;
    let own = lab.poll(&stayer, Vec::new()).await;
    lab.coordinator
        .handle(
            Peer::InProcess,
            Request::Leave {
                credentials: leaver.clone(),
            },
        )
        .await;
    assert_eq!(
        lab.report(&leaver, &theirs).await.0,
        401,
        "one that left has to register again"
    );
    let inherited = lab.poll(&stayer, vec![own.clone()]).await;
    assert_eq!(
        (inherited.round, inherited.client),
        (theirs.round, theirs.client)
    );
    assert_eq!(lab.report(&stayer, &own).await.0, 204);
    assert_eq!(lab.report(&stayer, &inherited).await.0, 204);
    let (_, rounds, _) = lab.finished(job).await;
    assert_eq!(rounds.len(), 1);
    assert_eq!(rounds[0].folded.len(), 2);
}

#[tokio::test]
async fn a_lost_answer_to_a_poll_costs_nothing() {
    let lab = Lab::open(CoordinatorConfig::default()).await;
    let worker = lab.worker("unlucky").await;
    lab.submit(|spec| spec.clients = Some(1)).await;
    let lost = lab.poll(&worker, Vec::new()).await;
    let again = lab.poll(&worker, Vec::new()).await;
    assert_eq!((again.round, again.client), (lost.round, lost.client));
    let request = Request::Heartbeat {
        credentials: worker.clone(),
        busy: vec![again.clone()],
    };
    let Response::Alive { unwanted } = lab.coordinator.handle(Peer::InProcess, request).await
    else {
        panic!("not alive")
    };
    assert!(unwanted.is_empty());
    lab.coordinator.cancel(&HERE, again.job).await.unwrap();
    let request = Request::Heartbeat {
        credentials: worker,
        busy: vec![again.clone()],
    };
    let Response::Alive { unwanted } = lab.coordinator.handle(Peer::InProcess, request).await
    else {
        panic!("not alive")
    };
    assert_eq!(unwanted, [again], "nobody wants a cancelled job's task");
}

#[tokio::test]
async fn events_begin_with_the_past_and_end_with_the_job() {
    let lab = Lab::open(CoordinatorConfig::default()).await;
    let job = lab.submit(|_| {}).await;
    lab.coordinator.cancel(&HERE, job).await.unwrap();
    let all: Vec<_> = lab
        .coordinator
        .events(&HERE, job, 0)
        .await
        .unwrap()
        .map(Result::unwrap)
        .collect()
        .await;
    assert!(matches!(
        all.first().map(|entry| &entry.event),
        Some(JobEvent::Waiting { .. })
    ));
    assert_eq!(
        all.last().map(|entry| &entry.event),
        Some(&JobEvent::Ended(Outcome::Cancelled))
    );
    let rest: Vec<_> = lab
        .coordinator
        .events(&HERE, job, 1)
        .await
        .unwrap()
        .map(Result::unwrap)
        .collect()
        .await;
    assert_eq!(rest, all[1..]);
}

#[tokio::test]
async fn strangers_are_refused_where_a_join_token_is_set() {
    let token = Token("secret".to_string());
    let config = CoordinatorConfig {
        join_token: Some(token.clone()),
        ..CoordinatorConfig::default()
    };
    let lab = Lab::open(config).await;
    let here = Peer::Address(([127, 0, 0, 1], 5000).into());
    let (right, wrong) = (Some(token), Some(Token("secre".to_string())));
    for (peer, token, granted) in [
        (here, right.clone(), true),
        (Peer::Unknown, right, true),
        (here, wrong.clone(), false),
        (Peer::InProcess, wrong, false),
        (here, None, false),
        (Peer::Unknown, None, false),
        // The holder of the coordinator itself.
        (Peer::InProcess, None, true),
    ] {
        let caller = Caller::new(peer, token.clone());
        let operator = lab.coordinator.authorize(&caller).await;
        let registered = lab.register_from(peer, token).await;
        if granted {
            assert!(operator.is_ok() && registered.is_ok(), "{caller:?}");
        } else {
            assert_eq!(refusal(operator).kind, RefusalKind::Unauthorized);
            let refused = registered.unwrap_err().kind;
            assert_eq!(refused, RefusalKind::Unauthorized, "{caller:?}");
        }
    }
    let json = "content-type: application/json\r\n";
    let (status, code) = lab.send("POST /api/v1/jobs", json, b"{}").await;
    assert_eq!((status, code.as_str()), (401, "unauthorized"));
    assert_eq!(lab.send("GET /api/v1/health", "", b"").await.0, 200);
}

#[tokio::test]
async fn without_a_join_token_only_this_machine_is_answered() {
    let lab = Lab::open(CoordinatorConfig::default()).await;
    let address = |text: &str| Peer::Address(text.parse().unwrap());
    for (peer, granted) in [
        (Peer::InProcess, true),
        (address("127.0.0.1:5000"), true),
        (address("[::1]:5000"), true),
        (address("[::ffff:127.0.0.1]:5000"), true),
        (address("192.168.0.7:5000"), false),
        (address("[2001:db8::1]:5000"), false),
        // A server that does not know the caller.
        (Peer::Unknown, false),
    ] {
        let caller = Caller::new(peer, None);
        let operator = lab.coordinator.authorize(&caller).await;
        let registered = lab.register_from(peer, None).await;
        if granted {
            assert!(operator.is_ok() && registered.is_ok(), "{peer:?}");
        } else {
            assert_eq!(refusal(operator).kind, RefusalKind::Forbidden);
            assert_eq!(registered.unwrap_err().kind, RefusalKind::Forbidden);
        }
    }
}
