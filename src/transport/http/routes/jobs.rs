//! Jobs, for operators.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::Body,
    extract::{FromRequest, Query, rejection::QueryRejection},
    http::{HeaderMap, Request, StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::StreamExt;
use serde::Deserialize;

use super::{
    answer::malformed,
    list::{Asked, Part, list},
};
use crate::{
    ids::{JobId, RoundId},
    job::JobSpec,
    protocol::{JobSummary, RoundRecord},
    report::RefusalKind,
    transport::{
        Page, Submission, SubmissionKey,
        http::{
            api::{BASE, JOB_HEADER, KEY_HEADER, SAFETENSORS},
            content::{digest, media_type, parameters},
            credentials::{Administers, AsOperator, Ids, Submits},
            initial_model::read_initial_model,
            json::{Json, json_header},
            openapi::Safetensors,
            problem::Problem,
        },
    },
};

/// Queues a job.
///
/// The body is its specification; or its initial model, with the specification in `Fedavg-Job`.
#[utoipa::path(post, path = "/jobs", operation_id = "submit_job", tag = "operator", security(("operator_token" = ["submit"])),
    params(
        ("Fedavg-Job" = Option<String>, Header,
            description = "`JobSpec` as JSON in one line of ASCII, if the body is the initial model.",
            example = "{\"model\":\"mlp\",\"dataset\":\"digits\"}"),
        ("Idempotency-Key" = Option<String>, Header,
            description = "1 to 128 visible characters. All submissions with one key are the same job, so that a submission \
                whose answer was lost can be sent again.",
            pattern = "^[!-~]{1,128}$", example = "7c1b6f0e"),
        ("Fedavg-Digest" = Option<String>, Header,
            description = "`crc32=` and eight hexadecimal digits: of the initial model.",
            pattern = "^crc32=[0-9a-f]{8}$", example = "crc32=cbf43926")),
    request_body(description = "The specification, or an initial model in f32.", content(
        (JobSpec = "application/json", examples(
            ("defaults" = (summary = "`mlp` on `digits`", value = json!({}))),
            ("uneven" = (summary = "Uneven data, small reports", value = json!({
                "model": "cifar_cnn", "dataset": "cifar10", "clients": 10, "rounds": 20,
                "partition": { "kind": "dirichlet", "alpha": 0.5 },
                "training": { "local_epochs": 1, "lr": 0.01 },
                "strategy": { "kind": "fedavg", "fraction": 0.5, "weighting": "examples" },
                "encoding": { "reports": "top_k:0.01", "models": "bf16" },
                "limits": { "min_updates": 3, "round_timeout": 600 }
            }))),
            ("local" = (summary = "Each worker's own data, an embedder's strategy", value = json!({
                "model": "mlp", "dataset": "digits", "partition": "local", "evaluation": "never",
                "strategy": { "kind": "custom", "name": "scaffold", "settings": { "step": 1.0 } },
                "settings": { "hidden": [64, 32] }
            }))))),
        (Safetensors = "application/octet-stream"))),
    responses((status = 201, description = "It is queued.", body = JobSummary,
        headers(("Location" = String, description = "The path of the job.")), example = json!({
            "job": 1,
            "spec": { "model": "mlp", "dataset": "digits", "partition": { "kind": "dirichlet", "alpha": 0.5 }, "rounds": 20 },
            "phase": "queued", "detail": "waits for its turn", "outcome": null, "clients": null, "round": 0,
            "version": 0, "accepted": 0, "goal": 0, "parameters": 2410, "submitted": 1790000000000u64, "ended": null
        }))))]
pub(super) async fn submit(
    asked: AsOperator<Submits>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let app = &asked.exchange.app;
    let has_model =
        media_type(request.headers()).is_some_and(|found| found.eq_ignore_ascii_case(SAFETENSORS));
    // Taken before the body is read, and held until the job is queued: until then the whole model is in memory.
    let _turn = if has_model {
        app.submissions.acquire().await.ok()
    } else {
        None
    };
    let key = key_of(request.headers())?;
    let (spec, initial) = if has_model {
        let (parts, body) = request.into_parts();
        let spec = json_header(&parts.headers, JOB_HEADER).map_err(as_invalid_job)?;
        let limit = app.config.max_body;
        let announced = digest(&parts.headers)?;
        let (bytes, length) = parameters(&parts.headers, body, limit)?;
        let (length, header) = (length.unwrap_or(limit), app.config.header);
        let initial = read_initial_model(bytes, length, header, announced).await?;
        (spec, Some(Arc::new(initial)))
    } else {
        let read = Json::<JobSpec>::from_request(request, app).await;
        let Json(spec) = read.map_err(as_invalid_job)?;
        (spec, None)
    };
    let mut submission = Submission::new(spec);
    (submission.initial, submission.key) = (initial, key);
    let submitted = asked.operator().submit_once(&asked.caller, submission);
    let summary = submitted.await?;
    let location = [(header::LOCATION, format!("{BASE}/jobs/{}", summary.job))];
    Ok((StatusCode::CREATED, location, axum::Json(summary)).into_response())
}

/// The key of a submission, if it has one.
fn key_of(headers: &HeaderMap) -> Result<Option<SubmissionKey>, Problem> {
    let Some(value) = headers.get(KEY_HEADER) else {
        return Ok(None);
    };
    let key = value.to_str().map_err(|error| error.to_string());
    let key = key.and_then(str::parse);
    key.map(Some)
        .map_err(|problem| malformed(format!("the header {KEY_HEADER} {problem}")))
}

/// JSON that is not a specification is an invalid job.
fn as_invalid_job(problem: Problem) -> Problem {
    if problem.code == RefusalKind::Malformed.code() && problem.status == 422 {
        Problem::new(RefusalKind::InvalidJob, problem.detail)
    } else {
        problem
    }
}

/// The jobs that are remembered.
#[utoipa::path(get, path = "/jobs", operation_id = "list_jobs", tag = "operator", security(("operator_token" = ["read"])),
    params(
        ("after" = Option<u64>, Query, description = "Only jobs after the one with this number."),
        ("limit" = Option<u64>, Query, minimum = 1,
            description = "At most this many jobs, or fewer if the coordinator's own limit is lower. Without it, all.")),
    responses((status = 200, description = "In order of their numbers.", body = Vec<JobSummary>,
        headers(("Link" = String, description = "The next page, as `rel=\"next\"`, if there is one.")))))]
pub(super) async fn jobs(asked: AsOperator, part: Part) -> Result<Response, Problem> {
    let path = format!("{BASE}/jobs");
    list(&path, part, move |after, limit| -> Asked<JobSummary> {
        let (operator, caller) = (asked.exchange.app.operator.clone(), asked.caller.clone());
        Box::pin(async move {
            let page = operator.jobs_page(&caller, JobId(after), limit).await?;
            Ok(Page::new(page.entries, page.next.map(|next| next.0)))
        })
    })
    .await
}

/// A job and its progress.
#[utoipa::path(get, path = "/jobs/{job}", operation_id = "get_job", tag = "operator", security(("operator_token" = ["read"])),
    params(("job" = JobId, Path, description = "The job.")),
    responses((status = 200, description = "Its summary.", body = JobSummary, example = json!({
            "job": 1,
            "spec": { "model": "mlp", "dataset": "digits", "partition": { "kind": "dirichlet", "alpha": 0.5 }, "rounds": 20 },
            "phase": "collecting", "detail": "waits for 2 of 4 reports", "outcome": null, "clients": 4, "round": 5,
            "version": 4, "accepted": 2, "goal": 4, "parameters": 2410, "submitted": 1790000000000u64, "ended": null
        }))))]
pub(super) async fn job(
    asked: AsOperator,
    Ids(job): Ids<JobId>,
) -> Result<axum::Json<JobSummary>, Problem> {
    Ok(axum::Json(asked.operator().job(&asked.caller, job).await?))
}

/// The records of a job's rounds that have ended.
#[utoipa::path(get, path = "/jobs/{job}/rounds", operation_id = "list_rounds", tag = "operator", security(("operator_token" = ["read"])),
    params(
        ("job" = JobId, Path, description = "The job."),
        ("after" = Option<u64>, Query, description = "Only those of rounds after the one with this number."),
        ("limit" = Option<u64>, Query, minimum = 1,
            description = "At most this many records, or fewer if the coordinator's own limit is lower. Without it, all.")),
    responses((status = 200, description = "In order.", body = Vec<RoundRecord>,
        headers(("Link" = String, description = "The next page, as `rel=\"next\"`, if there is one.")),
        example = json!([{
        "round": 4, "version": 4, "test_loss": 0.31, "test_accuracy": 0.91, "train_loss": 0.4, "lr": 0.01, "seconds": 2.1,
        "bytes": 1230144, "accepted": [0, 1, 2, 3], "folded": [0, 1, 2],
        "excluded": [{ "client": 3, "reason": "its norm is too large" }],
        "metrics": { "largest_norm": 3.5 }, "client_metrics": { "train_accuracy": 0.9 },
        "by_client": [{ "client": 0, "examples": 180, "metrics": { "train_accuracy": 0.92 } }],
        "contributions": [{
            "worker": 7, "name": "lab-3", "device": "libtorch:cuda:0", "clients": [0, 1, 2], "examples": 540,
            "seconds": 1.4, "energy_joules": 96.2
        }],
        "energy_joules": 96.2
    }]))))]
pub(super) async fn rounds(
    asked: AsOperator,
    Ids(job): Ids<JobId>,
    part: Part,
) -> Result<Response, Problem> {
    let path = format!("{BASE}/jobs/{job}/rounds");
    list(&path, part, move |after, limit| -> Asked<RoundRecord> {
        let (operator, caller) = (asked.exchange.app.operator.clone(), asked.caller.clone());
        Box::pin(async move {
            let page = operator.rounds_page(&caller, job, RoundId(after), limit);
            let page = page.await?;
            Ok(Page::new(page.entries, page.next.map(|next| next.0)))
        })
    })
    .await
}

/// Ends a job.
#[utoipa::path(post, path = "/jobs/{job}/cancel", operation_id = "cancel_job", tag = "operator", security(("operator_token" = ["submit"])),
    params(("job" = JobId, Path, description = "The job.")),
    responses((status = 200, description = "Its summary.", body = JobSummary)))]
pub(super) async fn cancel(
    asked: AsOperator<Submits>,
    Ids(job): Ids<JobId>,
) -> Result<axum::Json<JobSummary>, Problem> {
    Ok(axum::Json(
        asked.operator().cancel(&asked.caller, job).await?,
    ))
}

/// Lets no further round of a job begin. The open one goes on.
#[utoipa::path(post, path = "/jobs/{job}/pause", operation_id = "pause_job", tag = "operator", security(("operator_token" = ["submit"])),
    params(("job" = JobId, Path, description = "The job.")),
    responses((status = 200, description = "Its summary.", body = JobSummary)))]
pub(super) async fn pause(
    asked: AsOperator<Submits>,
    Ids(job): Ids<JobId>,
) -> Result<axum::Json<JobSummary>, Problem> {
    let paused = asked.operator().pause(&asked.caller, job, true);
    Ok(axum::Json(paused.await?))
}

/// Lets the rounds of a paused job begin again.
#[utoipa::path(post, path = "/jobs/{job}/resume", operation_id = "resume_job", tag = "operator", security(("operator_token" = ["submit"])),
    params(("job" = JobId, Path, description = "The job.")),
    responses((status = 200, description = "Its summary.", body = JobSummary)))]
pub(super) async fn resume(
    asked: AsOperator<Submits>,
    Ids(job): Ids<JobId>,
) -> Result<axum::Json<JobSummary>, Problem> {
    let resumed = asked.operator().pause(&asked.caller, job, false);
    Ok(axum::Json(resumed.await?))
}

/// Forgets a job that has ended, with its log, its records and its model.
#[utoipa::path(delete, path = "/jobs/{job}", operation_id = "delete_job", tag = "operator", security(("operator_token" = ["admin"])),
    params(("job" = JobId, Path, description = "The job.")),
    responses((status = 200, description = "Its last summary.", body = JobSummary)))]
pub(super) async fn delete(
    asked: AsOperator<Administers>,
    Ids(job): Ids<JobId>,
) -> Result<axum::Json<JobSummary>, Problem> {
    Ok(axum::Json(
        asked.operator().delete(&asked.caller, job).await?,
    ))
}

#[derive(Debug, Deserialize)]
pub(super) struct After {
    after: Option<u64>,
}

/// A job's events as server-sent events.
///
/// The past ones come first, then new ones as they happen. The stream ends after the job's last. The `data` of each is a
/// `LoggedEvent` as JSON in one line, and its `id` is the event's `sequence`.
#[utoipa::path(get, path = "/jobs/{job}/events", operation_id = "stream_events", tag = "operator",
    security(("operator_token" = ["read"])),
    params(
        ("job" = JobId, Path, description = "The job."),
        ("after" = Option<u64>, Query, description = "Only those after the one with this number."),
        ("Last-Event-ID" = Option<u64>, Header, description = "As `after`, which counts if both are there.")),
    responses((status = 200, description = "Server-sent events. Lines that begin with a colon keep the connection busy.",
        body = String, content_type = "text/event-stream",
        example = "id: 12\ndata: {\"sequence\":12,\"time\":1790000000000,\"event\":\"round_started\",\"round\":1,\"version\":0,\"cohort\":[0,1],\"goal\":2,\"quorum\":1}\n\n")))]
pub(super) async fn events(
    asked: AsOperator,
    Ids(job): Ids<JobId>,
    query: Result<Query<After>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Query(After { after }) = query.map_err(|error| malformed(error.body_text()))?;
    let last = match headers.get("last-event-id").map(|value| value.to_str()) {
        None => 0,
        Some(text) => text
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| malformed("Last-Event-ID must be a number".to_string()))?,
    };
    let events = asked
        .operator()
        .events(&asked.caller, job, after.unwrap_or(last));
    // The stream would otherwise go on until the job ends, and hold up the server's end.
    let events = events.await?.take_until(Box::pin(asked.exchange.stopped()));
    let events = events.filter_map(|event| {
        // The head of the answer is sent already, so an event that can't be read only ends the stream. The coordinator's
        // own log has the reason.
        let event = event.ok();
        let sent = event.and_then(|event| {
            let id = event.sequence.to_string();
            Event::default().id(id).json_data(&event).ok()
        });
        std::future::ready(sent.map(Ok::<_, Infallible>))
    });
    let keep_alive = KeepAlive::new().interval(asked.exchange.app.config.keep_alive);
    Ok(Sse::new(events).keep_alive(keep_alive).into_response())
}
