//! What ends with a token: streams that were asked for with it. And which tokens can't be ended.

use futures_util::StreamExt;

use super::*;
use crate::{protocol::AuditAction, transport::Events};

/// Somebody on another machine with this token.
fn caller(secret: &Token) -> Caller {
    let elsewhere = Peer::Address(([192, 0, 2, 7], 5000).into());
    Caller::new(elsewhere, Some(secret.clone()))
}

/// The events of a job, up to the last that is there.
async fn followed(lab: &Lab, secret: &Token, job: JobId) -> Events {
    let mut events = lab
        .coordinator
        .events(&caller(secret), job, 0)
        .await
        .unwrap();
    let there = lab.coordinator.log(job).await.unwrap().len();
    assert!(there > 0);
    for _ in 0..there {
        events.next().await.unwrap().unwrap();
    }
    events
}

/// The stream ends now, with the reason and without another event.
async fn has_ended(mut events: Events, reason: &str) {
    let next = tokio::time::timeout(LIMIT, events.next()).await;
    let last = next.expect("an end in time").expect("a reason");
    let told = refusal(last);
    assert_eq!(told.kind, RefusalKind::Unauthorized);
    assert!(told.detail.contains(reason), "{told}");
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn a_stream_ends_with_the_token_that_it_was_asked_for_with() {
    let lab = closed(|_| {}).await;
    let job = lab.submit(|_| {}).await;
    let (ann, ann_secret) = lab.token(NewToken::operator("ann", Scope::Read)).await;
    let (_, bob_secret) = lab.token(NewToken::operator("bob", Scope::Read)).await;
    let events = followed(&lab, &ann_secret, job).await;
    let late = followed(&lab, &ann_secret, job).await;
    let mut others = followed(&lab, &bob_secret, job).await;
    // Held: nothing happens in the job.
    let (_, revoked) = tokio::join!(
        has_ended(events, "was revoked"),
        lab.coordinator.revoke_token(&HERE, ann)
    );
    revoked.unwrap();
    // Not looked at before something has happened, too.
    lab.coordinator.cancel(&HERE, job).await.unwrap();
    has_ended(late, "was revoked").await;
    assert!(others.next().await.unwrap().is_ok());
    let again = lab.coordinator.events(&caller(&ann_secret), job, 0).await;
    assert_eq!(
        again.err().map(|error| refusal::<()>(Err(error)).kind),
        Some(RefusalKind::Unauthorized)
    );
}

#[tokio::test]
async fn a_stream_ends_when_its_token_expires() {
    let lab = closed(|_| {}).await;
    let job = lab.submit(|_| {}).await;
    let second = NewToken::operator("ann", Scope::Read).expires_in(Duration::from_secs(1));
    let (_, secret) = lab.token(second).await;
    // By itself.
    has_ended(followed(&lab, &secret, job).await, "has expired").await;
    let hour = NewToken::operator("bob", Scope::Read).expires_in(Duration::from_secs(3600));
    let (_, secret) = lab.token(hour).await;
    let events = followed(&lab, &secret, job).await;
    // At the next event, if the process was stopped in between.
    lab.coordinator.0.clock.skip(Duration::from_secs(3601));
    lab.coordinator.cancel(&HERE, job).await.unwrap();
    has_ended(events, "has expired").await;
}

#[tokio::test]
async fn a_list_is_not_read_on_after_the_end_of_the_token() {
    let lab = closed(|config| config.jobs.max_page = 1).await;
    for name in ["lab-1", "lab-2"] {
        lab.worker(name).await;
    }
    let (ann, secret) = lab.token(NewToken::operator("ann", Scope::Read)).await;
    let caller = caller(&secret);
    let page = |after| lab.coordinator.workers_page(&caller, after, 1);
    let first = page(Default::default()).await.unwrap();
    lab.coordinator.revoke_token(&HERE, ann).await.unwrap();
    let next = page(first.next.unwrap()).await;
    assert_eq!(refusal(next).kind, RefusalKind::Unauthorized);
}

#[tokio::test]
async fn an_administrator_can_t_revoke_the_last_one_and_revokes_another_once() {
    let lab = closed(|_| {}).await;
    let (ann, secret) = lab.token(NewToken::operator("ann", Scope::Admin)).await;
    let admin = caller(&secret);
    let refused = lab.coordinator.revoke_token(&admin, ann).await;
    let told = refusal(refused);
    assert_eq!(told.kind, RefusalKind::Conflict);
    assert!(told.detail.contains("fedavg token create"), "{told}");
    let (bob, _) = lab.token(NewToken::operator("bob", Scope::Admin)).await;
    let first = lab.coordinator.revoke_token(&admin, bob).await.unwrap();
    let again = lab.coordinator.revoke_token(&admin, bob).await.unwrap();
    assert_eq!(first, again);
    let audit = lab.coordinator.audit(&HERE, 0).await.unwrap();
    let mut revoked = Vec::new();
    for entry in audit {
        if entry.action == AuditAction::TokenRevoked {
            revoked.push((entry.by, entry.token));
        }
    }
    // With the number beside the name.
    assert_eq!(revoked, [("ann".to_string(), Some(ann))]);
}

#[tokio::test]
async fn a_misspelt_limit_makes_no_token_without_it() {
    let lab = closed(|_| {}).await;
    let (_, secret) = lab.token(NewToken::operator("ann", Scope::Admin)).await;
    let headers = format!(
        "authorization: Bearer {}\r\ncontent-type: application/json\r\n",
        secret.0
    );
    for (body, status) in [
        (r#"{"name":"site","kind":"join","use":1}"#, 422),
        (
            r#"{"name":"site","kind":"join","expires_in_s":18446744073709551615}"#,
            422,
        ),
        (r#"{"name":"site","kind":"join","uses":1}"#, 201),
        (r#"{"name":"site","kind":"join","uses":1}"#, 409),
    ] {
        let line = "POST /api/v1/tokens";
        let answer = lab.send(line, &headers, body.as_bytes()).await;
        assert_eq!(answer.0, status, "{body}: {answer:?}");
    }
    assert_eq!(lab.coordinator.tokens(&HERE).await.unwrap().len(), 3);
}
