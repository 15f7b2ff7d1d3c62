//! Each method of the operator checks its caller by itself: not every caller comes through a route.

use super::*;
use crate::ids::WorkerId;

/// Why a caller may not do this; none if it may, whatever else is wrong.
fn kept_out<T>(answer: Result<T, OperatorError>) -> Option<RefusalKind> {
    match answer {
        Err(OperatorError::Refused(refusal))
            if [RefusalKind::Unauthorized, RefusalKind::Forbidden].contains(&refusal.kind) =>
        {
            Some(refusal.kind)
        }
        _ => None,
    }
}

/// What each method says to this caller, and the scope that it needs. Nothing that is named is there, so that nothing is done.
async fn asked(
    operator: &Coordinator,
    caller: &Caller,
) -> Vec<(&'static str, Scope, Option<RefusalKind>)> {
    let (job, worker, token) = (JobId(99), WorkerId(99), TokenId(99));
    let wrong = JobSpec {
        rounds: 0,
        ..JobSpec::default()
    };
    let nameless = NewToken::join("");
    vec![
        (
            "own_access",
            Scope::Read,
            kept_out(operator.own_access(caller).await),
        ),
        ("jobs", Scope::Read, kept_out(operator.jobs(caller).await)),
        (
            "job",
            Scope::Read,
            kept_out(operator.job(caller, job).await),
        ),
        (
            "rounds",
            Scope::Read,
            kept_out(operator.rounds(caller, job, RoundId(0)).await),
        ),
        (
            "events",
            Scope::Read,
            kept_out(operator.events(caller, job, 0).await),
        ),
        (
            "workers",
            Scope::Read,
            kept_out(operator.workers(caller).await),
        ),
        (
            "model",
            Scope::Read,
            kept_out(operator.model(caller, job, None).await),
        ),
        (
            "submit",
            Scope::Submit,
            kept_out(operator.submit(caller, wrong, None).await),
        ),
        (
            "cancel",
            Scope::Submit,
            kept_out(operator.cancel(caller, job).await),
        ),
        (
            "pause",
            Scope::Submit,
            kept_out(operator.pause(caller, job, true).await),
        ),
        (
            "delete",
            Scope::Admin,
            kept_out(operator.delete(caller, job).await),
        ),
        (
            "create_token",
            Scope::Admin,
            kept_out(operator.create_token(caller, nameless).await),
        ),
        (
            "tokens",
            Scope::Admin,
            kept_out(operator.tokens(caller).await),
        ),
        (
            "revoke_token",
            Scope::Admin,
            kept_out(operator.revoke_token(caller, token).await),
        ),
        (
            "revoke_worker",
            Scope::Admin,
            kept_out(operator.revoke_worker(caller, worker).await),
        ),
        (
            "approve_worker",
            Scope::Admin,
            kept_out(operator.approve_worker(caller, worker).await),
        ),
        (
            "audit",
            Scope::Admin,
            kept_out(operator.audit(caller, 0).await),
        ),
    ]
}

#[tokio::test]
async fn each_method_asks_for_its_scope() {
    let lab = closed(|_| {}).await;
    let worker = lab.worker("lab-1").await;
    let (_, join) = lab.token(NewToken::join("join")).await;
    let elsewhere = Peer::Address(([192, 0, 2, 7], 5000).into());
    for shown in [None, Some(worker.token), Some(join)] {
        let caller = Caller::new(elsewhere, shown);
        for (method, _, kept_out) in asked(&lab.coordinator, &caller).await {
            assert!(kept_out.is_some(), "{method} {caller:?}");
        }
    }
    for scope in Scope::ALL {
        let (_, token) = lab.token(NewToken::operator(scope.name(), scope)).await;
        let caller = Caller::new(elsewhere, Some(token));
        for (method, needed, kept_out) in asked(&lab.coordinator, &caller).await {
            let expected = (scope < needed).then_some(RefusalKind::Forbidden);
            assert_eq!(kept_out, expected, "{method} with the scope {scope}");
        }
    }
}
