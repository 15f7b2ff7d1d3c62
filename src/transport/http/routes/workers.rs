//! Workers: registration, signs of life, and the asking for tasks.

use std::time::Duration;

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};

use super::{
    answer::plain,
    list::{Asked, Part, list},
};
use crate::{
    ids::WorkerId,
    protocol::{
        Alive, Heartbeat, Poll, Registered, Registration, Rotated, TaskMessage, TaskWork,
        WorkerSummary,
    },
    report::RefusalKind,
    transport::{
        self, Page, Request,
        http::{
            api::BASE,
            credentials::{Administers, AsOperator, Exchange, Ids, NamedWorker, Registrant},
            json::Json,
            problem::Problem,
        },
    },
};

/// Registers a worker, which gets a number and a token.
#[utoipa::path(post, path = "/workers", operation_id = "register_worker", tag = "workers", security(("join_token" = [])),
    request_body(content = Registration, description = "What the worker says about itself.", examples(
        ("everything" = (value = json!({
            "protocol": 2, "protocol_min": 1, "name": "lab-3", "slots": 1, "device": "numpy",
            "hardware": { "os": "linux", "arch": "x86_64", "logical_cores": 8, "memory_bytes": 16000000000u64 },
            "datasets": [{
                "name": "digits", "fingerprint": "5f2c1e0b7a9d4c3f8e6b5a4d3c2b1a0f5f2c1e0b7a9d4c3f8e6b5a4d3c2b1a0f",
                "train_examples": 1442, "test_examples": 355
            }],
            "encodings": ["f32", "int8", "top_k"], "capabilities": ["payload:control"], "local": false
        }))),
        ("least" = (value = json!({ "protocol": 2, "name": "lab-3" }))))),
    responses((status = 201, description = "Its number, its token and its intervals.", body = Registered,
        example = json!({ "worker": 7, "coordinator": "0d9c5a", "protocol": 2, "token": "b1946ac9", "heartbeat_ms": 10000, "poll_ms": 30000 }))))]
pub(super) async fn register(
    Registrant {
        exchange,
        join_token,
    }: Registrant,
    Json(registration): Json<Registration>,
) -> Response {
    let request = Request::Register {
        join_token,
        registration,
    };
    match exchange.handle(request).await {
        transport::Response::Registered(registered) => {
            (StatusCode::CREATED, axum::Json(registered)).into_response()
        }
        other => plain(other),
    }
}

/// The workers, live and gone.
#[utoipa::path(get, path = "/workers", operation_id = "list_workers", tag = "operator", security(("operator_token" = ["read"])),
    params(
        ("after" = Option<u64>, Query, description = "Only workers after the one with this number."),
        ("limit" = Option<u64>, Query, minimum = 1,
            description = "At most this many workers, or fewer if the coordinator's own limit is lower. Without it, all.")),
    responses((status = 200, description = "In order of their numbers.", body = Vec<WorkerSummary>,
        headers(("Link" = String, description = "The next page, as `rel=\"next\"`, if there is one.")),
        example = json!([{
            "worker": 7, "registration": { "protocol": 2, "name": "lab-3", "slots": 1, "device": "numpy" },
            "state": "live", "registered": 1790000000000u64, "last_seen": 1790000012000u64, "clients": 4,
            "examples_per_second": 1250.5
        }]))))]
pub(super) async fn workers(asked: AsOperator, part: Part) -> Result<Response, Problem> {
    let path = format!("{BASE}/workers");
    list(&path, part, move |after, limit| -> Asked<WorkerSummary> {
        let (operator, caller) = (asked.exchange.app.operator.clone(), asked.caller.clone());
        Box::pin(async move {
            let page = operator.workers_page(&caller, WorkerId(after), limit);
            let page = page.await?;
            Ok(Page::new(page.entries, page.next.map(|next| next.0)))
        })
    })
    .await
}

/// The worker leaves: its clients go to others at once.
#[utoipa::path(delete, path = "/workers/{worker}", operation_id = "leave", tag = "workers", security(("worker_token" = [])),
    params(("worker" = WorkerId, Path, description = "The worker that asks.")),
    responses((status = 204, description = "It has left.")))]
pub(super) async fn leave(NamedWorker(credentials): NamedWorker, exchange: Exchange) -> Response {
    plain(exchange.handle(Request::Leave { credentials }).await)
}

/// The worker gets another token. The one that it shows counts until it shows the new one.
#[utoipa::path(post, path = "/workers/{worker}/token", operation_id = "rotate_worker_token", tag = "workers",
    security(("worker_token" = [])),
    params(("worker" = WorkerId, Path, description = "The worker that asks.")),
    responses((status = 200, description = "The new token.", body = Rotated,
        example = json!({ "token": "fedavg_worker_0c1d2e3f" }))))]
pub(super) async fn rotate(NamedWorker(credentials): NamedWorker, exchange: Exchange) -> Response {
    match exchange.handle(Request::Rotate { credentials }).await {
        transport::Response::Rotated(token) => axum::Json(Rotated::new(token)).into_response(),
        other => plain(other),
    }
}

/// Lets a worker in that waits for it (`--approve`), or that is in quarantine.
#[utoipa::path(post, path = "/workers/{worker}/approve", operation_id = "approve_worker", tag = "access",
    security(("operator_token" = ["admin"])),
    params(("worker" = WorkerId, Path, description = "The worker.")),
    responses((status = 200, description = "The worker as it is now.", body = WorkerSummary)))]
pub(super) async fn approve(
    asked: AsOperator<Administers>,
    Ids(worker): Ids<WorkerId>,
) -> Result<axum::Json<WorkerSummary>, Problem> {
    let approved = asked.operator().approve_worker(&asked.caller, worker);
    Ok(axum::Json(approved.await?))
}

/// Revokes a worker's token: it has to register again. Its clients go to others, and its name is free.
#[utoipa::path(post, path = "/workers/{worker}/revoke", operation_id = "revoke_worker", tag = "access",
    security(("operator_token" = ["admin"])),
    params(("worker" = WorkerId, Path, description = "The worker.")),
    responses((status = 200, description = "The worker as it is now.", body = WorkerSummary)))]
pub(super) async fn revoke(
    asked: AsOperator<Administers>,
    Ids(worker): Ids<WorkerId>,
) -> Result<axum::Json<WorkerSummary>, Problem> {
    let revoked = asked.operator().revoke_worker(&asked.caller, worker);
    Ok(axum::Json(revoked.await?))
}

/// The worker is alive, and works on these tasks.
#[utoipa::path(post, path = "/workers/{worker}/heartbeat", operation_id = "send_heartbeat", tag = "workers",
    security(("worker_token" = [])),
    params(("worker" = WorkerId, Path, description = "The worker that asks.")),
    request_body(content = Heartbeat, description = "The tasks that the worker works on.", examples(
        ("at_work" = (value = json!({ "busy": [{
            "job": 1, "round": 4, "client": 2, "version": 3, "kind": "train", "remaining_ms": 899990,
            "training": {
                "local_epochs": 1, "batch_size": 64, "optimizer": "sgd", "lr": 0.01, "momentum": 0.9,
                "weight_decay": 0.0001, "augment": false
            }
        }] }))),
        ("idle" = (value = json!({ "busy": [] }))))),
    responses((status = 200, description = "The tasks that were cancelled.", body = Alive,
        example = json!({ "unwanted": [] }))))]
pub(super) async fn heartbeat(
    NamedWorker(credentials): NamedWorker,
    exchange: Exchange,
    Json(Heartbeat { busy }): Json<Heartbeat>,
) -> Response {
    if let Err(problem) = check_busy(&busy) {
        return problem.into_response();
    }
    match exchange
        .handle(Request::Heartbeat { credentials, busy })
        .await
    {
        transport::Response::Alive { unwanted } => axum::Json(Alive { unwanted }).into_response(),
        other => plain(other),
    }
}

/// The worker asks for a task.
///
/// The coordinator waits with the answer until there is one, at most as long as the worker asks.
#[utoipa::path(post, path = "/workers/{worker}/poll", operation_id = "poll", tag = "workers", security(("worker_token" = [])),
    params(("worker" = WorkerId, Path, description = "The worker that asks.")),
    request_body(content = Poll, description = "What the worker works on already, and how long it waits.",
        example = json!({ "busy": [], "wait_ms": 30000 })),
    responses(
        (status = 200, description = "A task.", body = TaskMessage, examples(
            ("train" = (value = json!({
                "job": 1, "round": 4, "client": 2, "version": 3, "kind": "train",
                "training": {
                    "local_epochs": 1, "batch_size": 64, "optimizer": "sgd", "lr": 0.01, "momentum": 0.9,
                    "weight_decay": 0.0001, "augment": false
                },
                "remaining_ms": 899990, "basis": 3, "sends": ["control"],
                "expects": [
                    {
                        "name": "delta", "shape": { "model": ["trainable", "buffer"] }, "dtype": "f32",
                        "encoding": "int8"
                    },
                    { "name": "counts", "shape": { "vector": 3 }, "dtype": "u64", "encoding": "f32" }
                ]
            }))),
            ("evaluate" = (value = json!({
                "job": 1, "round": 4, "client": 2, "version": 4, "kind": "evaluate", "share": 2, "shares": 8
            }))))),
        (status = 204, description = "None within the wait: poll again.")))]
pub(super) async fn poll(
    NamedWorker(credentials): NamedWorker,
    exchange: Exchange,
    Json(Poll { busy, wait_ms }): Json<Poll>,
) -> Response {
    if let Err(problem) = check_busy(&busy) {
        return problem.into_response();
    }
    let longest = exchange.app.config.max_wait;
    let wait = wait_ms.map_or(longest, |wait| Duration::from_millis(wait).min(longest));
    let request = Request::Poll {
        credentials,
        busy,
        wait,
    };
    let response = tokio::select! {
        response = exchange.handle(request) => response,
        // The worker polls again, and finds the coordinator gone. Without this, each poll would hold up the server's
        // end.
        () = exchange.stopped() => transport::Response::Idle,
    };
    match response {
        transport::Response::Task(task) => axum::Json(task).into_response(),
        transport::Response::Idle => StatusCode::NO_CONTENT.into_response(),
        other => plain(other),
    }
}

/// Refuses tasks that no coordinator hands out: they are sent back to the worker, which would then get what the document does not
/// allow.
fn check_busy(busy: &[TaskMessage]) -> Result<(), Problem> {
    for message in busy {
        let TaskWork::Train {
            training,
            objective,
            ..
        } = &message.work
        else {
            continue;
        };
        let checked = training.check();
        checked.map_err(|error| Problem::new(RefusalKind::Malformed, error.to_string()))?;
        if !objective.is_valid() {
            let detail = format!(
                "the numbers of the objective {} are below 0",
                objective.name()
            );
            return Err(Problem::new(RefusalKind::Malformed, detail));
        }
    }
    Ok(())
}
