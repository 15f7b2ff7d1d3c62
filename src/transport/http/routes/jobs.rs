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

use super::list::{Asked, Part, list};
use crate::{
    ids::{JobId, RoundId},
    job::JobSpec,
    protocol::{JobSummary, LoggedEvent, RoundRecord},
    report::RefusalKind,
    transport::{
        Page,
        http::{
            api::{BASE, JOB_HEADER, SAFETENSORS},
            content::{digest, media_type, parameters},
            credentials::{AsOperator, Ids},
            initial_model::read_initial_model,
            json::{Json, json_header},
            openapi::Safetensors,
            problem::Problem,
        },
    },
};

/// Queues a job. The body is its specification; or its initial model, with the specification in `Fedavg-Job`.
#[utoipa::path(post, path = "/jobs", tag = "operator", security(("join_token" = [])),
    params(
        ("Fedavg-Job" = Option<String>, Header,
            description = "`JobSpec` as JSON in ASCII, where the body is the initial model."),
        ("Fedavg-Digest" = Option<String>, Header,
            description = "`crc32=` and eight hexadecimal digits: of the initial model.")),
    request_body(content((JobSpec = "application/json"), (Safetensors = "application/octet-stream"))),
    responses((status = 201, description = "It is queued.", body = JobSummary)))]
pub(super) async fn submit(asked: AsOperator, request: Request<Body>) -> Result<Response, Problem> {
    let app = &asked.exchange.app;
    let has_model =
        media_type(request.headers()).is_some_and(|found| found.eq_ignore_ascii_case(SAFETENSORS));
    // Each holds a whole model in memory until it is kept.
    let _turn = if has_model {
        app.submissions.acquire().await.ok()
    } else {
        None
    };
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
    let submitted = asked.operator().submit(&asked.caller, spec, initial);
    let summary = submitted.await?;
    let location = [(header::LOCATION, format!("{BASE}/jobs/{}", summary.job))];
    Ok((StatusCode::CREATED, location, axum::Json(summary)).into_response())
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
#[utoipa::path(get, path = "/jobs", tag = "operator", security(("join_token" = [])),
    params(
        ("after" = Option<u64>, Query, description = "Only jobs after the one with this number."),
        ("limit" = Option<u64>, Query, minimum = 1,
            description = "At most so many jobs, or fewer if the coordinator's own limit is lower. Without it, all.")),
    responses((status = 200, description = "In order of their numbers.", body = Vec<JobSummary>,
        headers(("Link" = String, description = "The next page, as `rel=\"next\"`, if there is one.")))))]
pub(super) async fn jobs(asked: AsOperator, part: Part) -> Result<Response, Problem> {
    let path = format!("{BASE}/jobs");
    let read = move |after, limit| -> Asked<JobSummary> {
        let (operator, caller) = (asked.exchange.app.operator.clone(), asked.caller.clone());
        Box::pin(async move {
            let page = operator.jobs_page(&caller, JobId(after), limit).await?;
            Ok(Page::new(page.entries, page.next.map(|next| next.0)))
        })
    };
    list(&path, part, read).await
}

/// A job, and where it stands.
#[utoipa::path(get, path = "/jobs/{job}", tag = "operator", security(("join_token" = [])),
    params(("job" = JobId, Path, description = "The job.")),
    responses((status = 200, description = "Its summary.", body = JobSummary)))]
pub(super) async fn job(
    asked: AsOperator,
    Ids(job): Ids<JobId>,
) -> Result<axum::Json<JobSummary>, Problem> {
    Ok(axum::Json(asked.operator().job(&asked.caller, job).await?))
}

/// The records of a job's rounds that have ended.
#[utoipa::path(get, path = "/jobs/{job}/rounds", tag = "operator", security(("join_token" = [])),
    params(
        ("job" = JobId, Path, description = "The job."),
        ("after" = Option<u64>, Query, description = "Only those of rounds after the one with this number."),
        ("limit" = Option<u64>, Query, minimum = 1,
            description = "At most so many records, or fewer if the coordinator's own limit is lower. Without it, all.")),
    responses((status = 200, description = "In order.", body = Vec<RoundRecord>,
        headers(("Link" = String, description = "The next page, as `rel=\"next\"`, if there is one.")))))]
pub(super) async fn rounds(
    asked: AsOperator,
    Ids(job): Ids<JobId>,
    part: Part,
) -> Result<Response, Problem> {
    let path = format!("{BASE}/jobs/{job}/rounds");
    let read = move |after, limit| -> Asked<RoundRecord> {
        let (operator, caller) = (asked.exchange.app.operator.clone(), asked.caller.clone());
        Box::pin(async move {
            let page = operator.rounds_page(&caller, job, RoundId(after), limit);
            let page = page.await?;
            Ok(Page::new(page.entries, page.next.map(|next| next.0)))
        })
    };
    list(&path, part, read).await
}

/// Ends a job.
#[utoipa::path(post, path = "/jobs/{job}/cancel", tag = "operator", security(("join_token" = [])),
    params(("job" = JobId, Path, description = "The job.")),
    responses((status = 200, description = "Its summary.", body = JobSummary)))]
pub(super) async fn cancel(
    asked: AsOperator,
    Ids(job): Ids<JobId>,
) -> Result<axum::Json<JobSummary>, Problem> {
    Ok(axum::Json(
        asked.operator().cancel(&asked.caller, job).await?,
    ))
}

fn malformed(detail: String) -> Problem {
    Problem::new(RefusalKind::Malformed, detail).with_status(StatusCode::BAD_REQUEST)
}

#[derive(Debug, Deserialize)]
pub(super) struct After {
    after: Option<u64>,
}

/// A job's events as server-sent events: the past ones, then new ones as they come. Ends after the job's last.
#[utoipa::path(get, path = "/jobs/{job}/events", tag = "operator", security(("join_token" = [])),
    params(
        ("job" = JobId, Path, description = "The job."),
        ("after" = Option<u64>, Query, description = "Only those after the one with this number."),
        ("Last-Event-ID" = Option<u64>, Header, description = "As `after`, which counts where both are there.")),
    responses((status = 200, description = "Each has its number as `id` and is JSON.",
        body = LoggedEvent, content_type = "text/event-stream")))]
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
    let events = events.await?.take_until(Box::pin(asked.exchange.stopped()));
    let events = events.filter_map(|event| {
        // An event that is not to be had ends the stream of a coordinator; whoever asks again gets the reason.
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
