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
    protocol::{Alive, Heartbeat, Poll, Registered, Registration, TaskMessage, WorkerSummary},
    transport::{
        self, Page, Request,
        http::{
            api::BASE,
            credentials::{AsOperator, Exchange, NamedWorker, Registrant},
            json::Json,
            problem::Problem,
        },
    },
};

/// Registers a worker, which gets a number and a token.
#[utoipa::path(post, path = "/workers", tag = "workers", security(("join_token" = [])),
    request_body = Registration,
    responses((status = 201, description = "Its number, its token and its intervals.", body = Registered)))]
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
#[utoipa::path(get, path = "/workers", tag = "operator", security(("join_token" = [])),
    params(
        ("after" = Option<u64>, Query, description = "Only workers after the one with this number."),
        ("limit" = Option<u64>, Query, minimum = 1,
            description = "At most so many workers, or fewer if the coordinator's own limit is lower. Without it, all.")),
    responses((status = 200, description = "In order of their numbers.", body = Vec<WorkerSummary>,
        headers(("Link" = String, description = "The next page, as `rel=\"next\"`, if there is one.")))))]
pub(super) async fn workers(asked: AsOperator, part: Part) -> Result<Response, Problem> {
    let path = format!("{BASE}/workers");
    let read = move |after, limit| -> Asked<WorkerSummary> {
        let (operator, caller) = (asked.exchange.app.operator.clone(), asked.caller.clone());
        Box::pin(async move {
            let page = operator.workers_page(&caller, WorkerId(after), limit);
            let page = page.await?;
            Ok(Page::new(page.entries, page.next.map(|next| next.0)))
        })
    };
    list(&path, part, read).await
}

/// The worker leaves: its clients go to others at once.
#[utoipa::path(delete, path = "/workers/{worker}", tag = "workers", security(("worker_token" = [])),
    params(("worker" = WorkerId, Path, description = "The worker that asks.")),
    responses((status = 204, description = "It has left.")))]
pub(super) async fn leave(NamedWorker(credentials): NamedWorker, exchange: Exchange) -> Response {
    plain(exchange.handle(Request::Leave { credentials }).await)
}

/// The worker is alive, and works on these tasks.
#[utoipa::path(post, path = "/workers/{worker}/heartbeat", tag = "workers", security(("worker_token" = [])),
    params(("worker" = WorkerId, Path, description = "The worker that asks.")),
    request_body = Heartbeat,
    responses((status = 200, description = "The tasks that are not wanted any more.", body = Alive)))]
pub(super) async fn heartbeat(
    NamedWorker(credentials): NamedWorker,
    exchange: Exchange,
    Json(Heartbeat { busy }): Json<Heartbeat>,
) -> Response {
    match exchange
        .handle(Request::Heartbeat { credentials, busy })
        .await
    {
        transport::Response::Alive { unwanted } => axum::Json(Alive { unwanted }).into_response(),
        other => plain(other),
    }
}

/// The worker asks for a task. The coordinator waits with the answer until there is one.
#[utoipa::path(post, path = "/workers/{worker}/poll", tag = "workers", security(("worker_token" = [])),
    params(("worker" = WorkerId, Path, description = "The worker that asks.")),
    request_body = Poll,
    responses(
        (status = 200, description = "A task.", body = TaskMessage),
        (status = 204, description = "None within the wait: poll again.")))]
pub(super) async fn poll(
    NamedWorker(credentials): NamedWorker,
    exchange: Exchange,
    Json(Poll { busy, wait_ms }): Json<Poll>,
) -> Response {
    let longest = exchange.app.config.max_wait;
    let wait = wait_ms.map_or(longest, |wait| Duration::from_millis(wait).min(longest));
    let request = Request::Poll {
        credentials,
        busy,
        wait,
    };
    let response = tokio::select! {
        response = exchange.handle(request) => response,
        () = exchange.stopped() => transport::Response::Idle,
    };
    match response {
        transport::Response::Task(task) => axum::Json(task).into_response(),
        transport::Response::Idle => StatusCode::NO_CONTENT.into_response(),
        other => plain(other),
    }
}
