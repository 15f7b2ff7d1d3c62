//! What lets workers in, what puts them out, and what is written down of it.

use super::*;
use crate::protocol::{Admission, AuditAction};

impl Lab {
    async fn is_idle(&self, credentials: &Credentials) -> bool {
        let request = Request::Poll {
            credentials: credentials.clone(),
            busy: Vec::new(),
            wait: Duration::ZERO,
        };
        match self.coordinator.handle(Peer::InProcess, request).await {
            Response::Idle => true,
            Response::Task(_) => false,
            other => panic!("{other:?}"),
        }
    }

    async fn leave(&self, credentials: &Credentials) {
        let request = Request::Leave {
            credentials: credentials.clone(),
        };
        let answer = self.coordinator.handle(Peer::InProcess, request).await;
        assert!(matches!(answer, Response::Accepted), "{answer:?}");
    }

    async fn refusal_of(&self, request: Request) -> RefusalKind {
        match self.coordinator.handle(Peer::InProcess, request).await {
            Response::Refused(refusal) => refusal.kind,
            other => panic!("{other:?}"),
        }
    }

    async fn admission(&self, credentials: &Credentials) -> Admission {
        let workers = self.coordinator.workers(&HERE).await.unwrap();
        let mut workers = workers.into_iter();
        let found = workers.find(|worker| worker.worker == credentials.worker);
        found.unwrap().admission
    }

    async fn actions(&self) -> Vec<(AuditAction, String, String)> {
        let entries = self.coordinator.audit(&HERE, 0).await.unwrap();
        let mut actions = Vec::new();
        for (place, entry) in entries.into_iter().enumerate() {
            assert_eq!(entry.number, place as u64 + 1);
            actions.push((entry.action, entry.by, entry.subject));
        }
        actions
    }
}

#[tokio::test]
async fn a_token_of_one_use_lets_one_worker_in_even_if_its_answer_was_lost() {
    let lab = closed(|_| {}).await;
    let (_, token) = lab.token(NewToken::join("one").uses(1)).await;
    let lost = lab.join("lab-1", &token, false).await.unwrap();
    // The answer did not arrive: the same worker asks again, and gets another number.
    let again = lab.join("lab-1", &token, false).await.unwrap();
    assert_ne!(lost.worker, again.worker);
    let other = lab.join("lab-2", &token, false).await.unwrap_err();
    assert_eq!(other.kind, RefusalKind::Unauthorized);
    assert!(lab.is_idle(&again).await);
    // The first one's token is refused, and once the worker was heard of, it is no lost answer any more.
    let heartbeat = Request::Heartbeat {
        credentials: lost,
        busy: Vec::new(),
    };
    assert_eq!(lab.refusal_of(heartbeat).await, RefusalKind::Unauthorized);
    let late = lab.join("lab-1", &token, false).await.unwrap_err();
    assert_eq!(late.kind, RefusalKind::Unauthorized);
}

#[tokio::test]
async fn a_worker_that_left_comes_back_without_a_further_use() {
    let lab = closed(|config| config.access.quarantine.refusals = 1).await;
    let (_, token) = lab.token(NewToken::join("site").uses(1)).await;
    let first = lab.join("lab-1", &token, false).await.unwrap();
    assert!(lab.is_idle(&first).await);
    // It is there: another one of its name is another worker.
    let other = lab.join("lab-1", &token, false).await.unwrap_err();
    assert_eq!(other.kind, RefusalKind::Unauthorized);
    lab.leave(&first).await;
    let other = lab.join("lab-2", &token, false).await.unwrap_err();
    assert_eq!(other.kind, RefusalKind::Unauthorized);
    let again = lab.join("lab-1", &token, false).await.unwrap();
    assert!(lab.is_idle(&again).await);
    // What it did wrong comes back with it.
    let refusal = Refusal::new(RefusalKind::Malformed, "a value is NaN");
    lab.coordinator.note_refused_report(again.worker, &refusal);
    lab.leave(&again).await;
    let held = lab.join("lab-1", &token, false).await.unwrap();
    assert_eq!(lab.admission(&held).await, Admission::Quarantined);
    // Put out, it does not come back by this token.
    let revoked = lab.coordinator.revoke_worker(&HERE, held.worker).await;
    assert_eq!(revoked.unwrap().admission, Admission::Revoked);
    assert!(lab.join("lab-1", &token, false).await.is_err());
}

#[tokio::test]
async fn a_poll_of_a_worker_that_is_revoked_is_answered_at_once_with_the_reason() {
    let lab = closed(|config| {
        // Longer than this test waits for anything.
        config.workers.poll_wait = LIMIT * 100;
        config.workers.expiry = LIMIT * 1000;
    })
    .await;
    let worker = lab.worker("lab-1").await;
    let request = Request::Poll {
        credentials: worker.clone(),
        busy: Vec::new(),
        wait: LIMIT * 100,
    };
    let polled = lab.coordinator.handle(Peer::InProcess, request);
    // In this order: the poll is held when the worker is revoked.
    let (answer, revoked) = tokio::join!(
        tokio::time::timeout(LIMIT, polled),
        lab.coordinator.revoke_worker(&HERE, worker.worker)
    );
    assert_eq!(revoked.unwrap().admission, Admission::Revoked);
    let Response::Refused(refusal) = answer.expect("an answer in time") else {
        panic!("a task for a revoked worker");
    };
    assert_eq!(refusal.kind, RefusalKind::Unauthorized);
    assert!(refusal.detail.contains("token was revoked"), "{refusal}");
    let approved = lab.coordinator.approve_worker(&HERE, worker.worker).await;
    let told = super::super::refusal(approved);
    assert_eq!(told.kind, RefusalKind::Conflict);
    assert!(told.detail.contains("register again"), "{told}");
}

#[tokio::test]
async fn a_worker_that_waits_for_approval_gets_nothing_until_it_is_approved() {
    let lab = closed(|config| config.access.approve = true).await;
    let (_, token) = lab.token(NewToken::join("lab")).await;
    let worker = lab.join("lab-1", &token, false).await.unwrap();
    let job = lab.submit(|spec| spec.clients = Some(1)).await;
    assert!(lab.is_idle(&worker).await);
    assert_eq!(lab.admission(&worker).await, Admission::Pending);
    let model = Request::Model {
        credentials: worker.clone(),
        job,
        version: Default::default(),
        payload: None,
    };
    assert_eq!(lab.refusal_of(model).await, RefusalKind::Forbidden);
    let approved = lab.coordinator.approve_worker(&HERE, worker.worker).await;
    assert_eq!(approved.unwrap().admission, Admission::Admitted);
    let task = lab.poll(&worker, Vec::new()).await;
    assert_eq!(lab.report(&worker, &task).await.0, 204);
    let again = lab.coordinator.approve_worker(&HERE, worker.worker).await;
    assert_eq!(refusal(again).kind, RefusalKind::Conflict);
}

#[tokio::test]
async fn only_workers_on_the_list_may_register() {
    let lab = closed(|config| {
        config.access.allowed = vec![
            AllowedWorker::Name("lab-1".to_string()),
            AllowedWorker::Certificate([7; 32]),
        ];
    })
    .await;
    let (_, token) = lab.token(NewToken::join("lab")).await;
    assert!(lab.join("lab-1", &token, false).await.is_ok());
    let refused = lab.join("lab-2", &token, false).await.unwrap_err();
    assert_eq!(refused.kind, RefusalKind::Forbidden);
    for (certificate, is_known) in [([7; 32], true), ([8; 32], false)] {
        let address = ([192, 0, 2, 7], 5000).into();
        let peer = Peer::Certified {
            address,
            certificate,
        };
        let registration = lab.registration("lab-2");
        let asked = lab.ask_to_register(peer, Some(token.clone()), registration);
        assert_eq!(asked.await.is_ok(), is_known);
    }
}

#[tokio::test]
async fn a_worker_whose_reports_are_refused_is_put_into_quarantine_and_its_client_goes_to_another()
{
    let lab = closed(|config| config.access.quarantine.refusals = 2).await;
    let bad = lab.worker("bad").await;
    let job = lab.submit(|spec| spec.rounds = 2).await;
    for round in 1..=2 {
        let task = lab.poll(&bad, Vec::new()).await;
        let (status, _) = lab
            .put_report(&bad, &task, &lab.metadata(&task), &lab.body(f32::NAN))
            .await;
        assert_eq!(status, 422, "{round}");
    }
    assert_eq!(lab.admission(&bad).await, Admission::Quarantined);
    assert!(lab.is_idle(&bad).await);
    let good = lab.worker("good").await;
    let ended = super::super::recovery::finish(&lab, &[&good], job).await;
    assert_eq!(ended, [2.0; SIZE]);
    let workers = lab.coordinator.workers(&HERE).await.unwrap();
    let shown = &workers[0];
    assert_eq!((shown.worker, shown.refused_reports), (bad.worker, 2));
    assert!(shown.held.as_ref().unwrap().contains("2 reports refused"));
    // An operator lifts it.
    let released = lab.coordinator.approve_worker(&HERE, bad.worker).await;
    assert_eq!(released.unwrap().admission, Admission::Admitted);
    let actions = lab.actions().await;
    let quarantined = (
        AuditAction::WorkerQuarantined,
        "coordinator".to_string(),
        format!("worker {} (bad)", bad.worker),
    );
    assert!(actions.contains(&quarantined), "{actions:?}");
}

#[tokio::test]
async fn a_new_registration_under_the_same_name_ends_no_quarantine() {
    let lab = closed(|config| config.access.quarantine.refusals = 1).await;
    let (_, token) = lab.token(NewToken::join("north")).await;
    let bad = lab.join("hospital", &token, true).await.unwrap();
    let refusal = Refusal::new(RefusalKind::Malformed, "a value is NaN");
    lab.coordinator.note_refused_report(bad.worker, &refusal);
    let leave = Request::Leave {
        credentials: bad.clone(),
    };
    lab.coordinator.handle(Peer::InProcess, leave).await;
    let back = lab.join("hospital", &token, true).await.unwrap();
    assert_eq!(lab.admission(&back).await, Admission::Quarantined);
    assert!(lab.is_idle(&back).await);
}

#[tokio::test]
async fn a_quarantine_ends_by_itself() {
    let lab = closed(|config| {
        config.access.quarantine.refusals = 1;
        config.access.quarantine.lasts = Duration::ZERO;
    })
    .await;
    let worker = lab.worker("clumsy").await;
    lab.submit(|spec| spec.clients = Some(1)).await;
    let task = lab.poll(&worker, Vec::new()).await;
    let (status, _) = lab
        .put_report(&worker, &task, &lab.metadata(&task), b"not a report")
        .await;
    assert_eq!(status, 422);
    // It is over already, and is not shown until the worker asks again.
    assert_eq!(lab.admission(&worker).await, Admission::Admitted);
    lab.is_idle(&worker).await;
    let actions = lab.actions().await;
    let released = (
        AuditAction::WorkerReleased,
        "coordinator".to_string(),
        format!("worker {} (clumsy)", worker.worker),
    );
    assert!(actions.contains(&released), "{actions:?}");
}

#[tokio::test]
async fn the_name_of_a_worker_with_data_of_its_own_belongs_to_its_token() {
    let lab = closed(|_| {}).await;
    let (_, north) = lab.token(NewToken::join("north")).await;
    let (_, south) = lab.token(NewToken::join("south")).await;
    let worker = lab.join("hospital", &north, true).await.unwrap();
    // Gone: its name could be taken otherwise.
    let leave = Request::Leave {
        credentials: worker.clone(),
    };
    lab.coordinator.handle(Peer::InProcess, leave).await;
    let refused = lab.join("hospital", &south, true).await.unwrap_err();
    assert_eq!(refused.kind, RefusalKind::Forbidden);
    assert!(refused.detail.contains("north"), "{}", refused.detail);
    let back = lab.join("hospital", &north, true).await.unwrap();
    // An operator frees it.
    lab.coordinator
        .revoke_worker(&HERE, back.worker)
        .await
        .unwrap();
    assert!(lab.join("hospital", &south, true).await.is_ok());
}

#[tokio::test]
async fn a_new_token_counts_at_once_and_the_former_one_until_then() {
    let lab = closed(|_| {}).await;
    let former = lab.worker("lab-1").await;
    let request = || Request::Rotate {
        credentials: former.clone(),
    };
    let mut rotated = former.clone();
    // Twice: the first answer was lost.
    for _ in 0..2 {
        let answer = lab.coordinator.handle(Peer::InProcess, request()).await;
        let Response::Rotated(token) = answer else {
            panic!("{answer:?}");
        };
        rotated.token = token;
    }
    assert!(lab.is_idle(&former).await);
    assert!(lab.is_idle(&rotated).await);
    assert_eq!(lab.refusal_of(request()).await, RefusalKind::Unauthorized);
}

#[tokio::test]
async fn tokens_admissions_and_the_audit_survive_the_coordinator() {
    let home = super::super::recovery::Home::new();
    let mut config = CoordinatorConfig::default();
    config.access.approve = true;
    let lab = home.start_with(config.clone()).await;
    let (join, secret) = lab.token(NewToken::join("lab").uses(2)).await;
    let (ann, ann_secret) = lab.token(NewToken::operator("ann", Scope::Submit)).await;
    let (bob, bob_secret) = lab.token(NewToken::operator("bob", Scope::Admin)).await;
    lab.coordinator.revoke_token(&HERE, bob).await.unwrap();
    let worker = lab.join("lab-1", &secret, false).await.unwrap();
    let approved = lab.join("lab-2", &secret, false).await.unwrap();
    lab.coordinator
        .approve_worker(&HERE, approved.worker)
        .await
        .unwrap();
    let (tokens, actions) = (
        lab.coordinator.tokens(&HERE).await.unwrap(),
        lab.actions().await,
    );
    super::super::recovery::kill(lab).await;

    let lab = home.start_with(config).await;
    assert_eq!(lab.coordinator.tokens(&HERE).await.unwrap(), tokens);
    assert_eq!(lab.actions().await, actions);
    let caller = |secret: &Token| Caller::new(Peer::Unknown, Some(secret.clone()));
    let own = lab.coordinator.own_access(&caller(&ann_secret)).await;
    assert_eq!(own.unwrap().scope, Scope::Submit);
    let revoked = lab.coordinator.own_access(&caller(&bob_secret)).await;
    assert_eq!(refusal(revoked).kind, RefusalKind::Unauthorized);
    assert!(lab.join("lab-3", &secret, false).await.is_err());
    assert_eq!(lab.admission(&worker).await, Admission::Pending);
    assert_eq!(lab.admission(&approved).await, Admission::Admitted);
    // The numbers go on.
    let (next, _) = lab.token(NewToken::join("next")).await;
    assert_eq!(
        (join, ann, bob, next),
        (TokenId(1), TokenId(2), TokenId(3), TokenId(4))
    );
    let told = lab.actions().await;
    assert_eq!(told.len(), actions.len() + 1);
}

#[tokio::test]
async fn each_action_of_an_operator_is_in_the_audit_with_name_and_address() {
    let lab = closed(|_| {}).await;
    let (_, secret) = lab.token(NewToken::operator("ann", Scope::Admin)).await;
    let elsewhere = Peer::Address(([192, 0, 2, 7], 5000).into());
    let ann = Caller::new(elsewhere, Some(secret));
    let operator = &lab.coordinator;
    let spec = JobSpec {
        clients: Some(1),
        evaluation: EvaluationMode::Never,
        ..lab.trainers.job()
    };
    lab.worker("lab-1").await;
    let job = operator.submit(&ann, spec, None).await.unwrap().job;
    operator.pause(&ann, job, true).await.unwrap();
    operator.pause(&ann, job, false).await.unwrap();
    operator.cancel(&ann, job).await.unwrap();
    operator.delete(&ann, job).await.unwrap();
    // What is refused is not done.
    assert!(operator.delete(&ann, job).await.is_err());
    let entries = operator.audit(&ann, 0).await.unwrap();
    let mut of_ann = Vec::new();
    for entry in entries.iter().filter(|entry| entry.by == "ann") {
        assert_eq!(entry.from.as_deref(), Some("192.0.2.7"));
        assert_eq!(entry.subject, format!("job {job}"));
        of_ann.push(entry.action);
    }
    assert_eq!(
        of_ann,
        [
            AuditAction::JobSubmitted,
            AuditAction::JobPaused,
            AuditAction::JobResumed,
            AuditAction::JobCancelled,
            AuditAction::JobDeleted,
        ]
    );
}
