//! The life of jobs: queued, without workers, without reports, cancelled.

use futures_util::StreamExt;

use super::*;
use crate::{
    job::StrategySpec,
    protocol::Scope,
    round::{JobEvent, Outcome},
};

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
async fn a_reducer_that_can_not_do_with_the_workers_there_are_fails_the_job_at_once() {
    let lab = Lab::open(CoordinatorConfig::default()).await;
    let _workers = (lab.worker("first").await, lab.worker("second").await);
    let job = lab
        .submit(|spec| {
            spec.clients = None;
            spec.limits.min_workers = 2;
            spec.strategy = StrategySpec::preset("krum");
        })
        .await;
    let (summary, rounds, _) = lab.finished(job).await;
    let Some(Outcome::Failed { reason }) = summary.outcome else {
        panic!("{summary:?}")
    };
    for part in [
        "the reducer needs at least 3 reports, and a round asks 2 clients",
        "give --clients (at least 3), or --min-workers 3",
    ] {
        assert!(reason.contains(part), "{reason}");
    }
    assert!(!reason.contains("attempt"), "{reason}");
    assert!(rounds.is_empty(), "{rounds:?}");
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
async fn strangers_are_refused() {
    let token = |text: &str| Some(Token(text.to_string()));
    let mut config = CoordinatorConfig::default();
    config.access.join_token = token("join");
    config.access.admin_token = token("admin");
    let lab = Lab::open(config).await;
    let here = Peer::Address(([127, 0, 0, 1], 5000).into());
    for (peer, shown, operates, joins) in [
        (here, token("admin"), true, false),
        (Peer::Unknown, token("admin"), true, false),
        (here, token("join"), false, true),
        (Peer::Unknown, token("join"), false, true),
        (here, token("admi"), false, false),
        (Peer::InProcess, token("joi"), false, false),
        (here, None, false, false),
        (Peer::Unknown, None, false, false),
        // The holder of the coordinator itself.
        (Peer::InProcess, None, true, true),
    ] {
        let caller = Caller::new(peer, shown.clone());
        let operator = lab.coordinator.authorize(&caller, Scope::Admin).await;
        let registered = lab.register_from(peer, shown).await;
        assert_eq!(
            (operator.is_ok(), registered.is_ok()),
            (operates, joins),
            "{caller:?}"
        );
    }
    let json = "content-type: application/json\r\n";
    let (status, code) = lab.send("POST /api/v1/jobs", json, b"{}").await;
    assert_eq!((status, code.as_str()), (401, "unauthorized"));
    assert_eq!(lab.send("GET /api/v1/health", "", b"").await.0, 200);
}

#[tokio::test]
async fn an_open_coordinator_answers_its_own_machine_alone() {
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
        let operator = lab.coordinator.authorize(&caller, Scope::Admin).await;
        let registered = lab.register_from(peer, None).await;
        if granted {
            assert!(operator.is_ok() && registered.is_ok(), "{peer:?}");
        } else {
            assert_eq!(refusal(operator).kind, RefusalKind::Unauthorized);
            assert_eq!(registered.unwrap_err().kind, RefusalKind::Unauthorized);
        }
    }
}
