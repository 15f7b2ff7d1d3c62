//! Jobs, for operators.

use std::convert::Infallible;

use axum::{
    body::Body,
    extract::{FromRequest, Query, State, rejection::QueryRejection},
    http::{HeaderMap, Request, StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{StreamExt, TryStreamExt};
use serde::Deserialize;

use super::{App, training::parameters};
use crate::{
    ids::JobId,
    job::JobSpec,
    parameters::{Parameters, safetensors::Decoder},
    report::RefusalKind,
    telemetry::{JobSummary, LoggedEvent, RoundRecord},
    transport::{
        BodyError,
        body::ByteStream,
        http::{
            api::{BASE, JOB_HEADER, SAFETENSORS},
            extract::{AsOperator, Ids, Json, json_header, media_type},
            openapi::Safetensors,
            problem::Problem,
        },
    },
};

/// Queues a job. The body is its specification; or its initial model, with the specification in `Fedavg-Job`.
#[utoipa::path(post, path = "/jobs", tag = "operator", security(("join_token" = [])),
    params(("Fedavg-Job" = Option<String>, Header,
        description = "`JobSpec` as JSON in ASCII, where the body is the initial model.")),
    request_body(content((JobSpec = "application/json"), (Safetensors = "application/octet-stream"))),
    responses((status = 201, description = "It is queued.", body = JobSummary)))]
pub(super) async fn submit(
    _: AsOperator,
    State(app): State<App>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let has_model =
        media_type(request.headers()).is_some_and(|found| found.eq_ignore_ascii_case(SAFETENSORS));
    let (spec, initial) = match has_model {
        true => {
            let (parts, body) = request.into_parts();
            let spec = json_header(&parts.headers, JOB_HEADER).map_err(as_invalid_job)?;
            let limit = app.config.max_body;
            let (bytes, length) = parameters(&parts.headers, body, limit)?;
            (spec, Some(decode(bytes, length.unwrap_or(limit)).await?))
        }
        false => {
            let read = Json::<JobSpec>::from_request(request, &app).await;
            let Json(spec) = read.map_err(as_invalid_job)?;
            (spec, None)
        }
    };
    // Drawing and keeping the initial model can take seconds.
    let submitted = tokio::task::spawn_blocking(move || app.endpoint.submit(spec, initial)).await;
    let summary =
        submitted.map_err(|error| Problem::new(RefusalKind::Busy, error.to_string()))??;
    let location = [(header::LOCATION, format!("{BASE}/jobs/{}", summary.job))];
    Ok((StatusCode::CREATED, location, axum::Json(summary)).into_response())
}

/// JSON that is not a specification is an invalid job.
fn as_invalid_job(problem: Problem) -> Problem {
    match problem.code == RefusalKind::Malformed.code() && problem.status == 422 {
        true => Problem::new(RefusalKind::InvalidJob, problem.detail),
        false => problem,
    }
}

async fn decode(mut bytes: ByteStream, limit: u64) -> Result<Parameters, Problem> {
    let malformed = |error| Problem::from(BodyError::Malformed(format!("{error}")));
    let mut decoder = Decoder::any().with_limit(limit);
    while let Some(piece) = bytes.try_next().await? {
        decoder.push(&piece).map_err(malformed)?;
    }
    decoder.finish().map_err(malformed)
}

/// The jobs that are remembered.
#[utoipa::path(get, path = "/jobs", tag = "operator", security(("join_token" = [])),
    responses((status = 200, description = "In order of their numbers.", body = Vec<JobSummary>)))]
pub(super) async fn jobs(_: AsOperator, State(app): State<App>) -> axum::Json<Vec<JobSummary>> {
    axum::Json(app.endpoint.jobs())
}

/// A job, and where it stands.
#[utoipa::path(get, path = "/jobs/{job}", tag = "operator", security(("join_token" = [])),
    params(("job" = JobId, Path, description = "The job.")),
    responses((status = 200, description = "Its summary.", body = JobSummary)))]
pub(super) async fn job(
    _: AsOperator,
    Ids(job): Ids<JobId>,
    State(app): State<App>,
) -> Result<axum::Json<JobSummary>, Problem> {
    Ok(axum::Json(app.endpoint.job(job)?))
}

/// The records of a job's rounds that have ended.
#[utoipa::path(get, path = "/jobs/{job}/rounds", tag = "operator", security(("join_token" = [])),
    params(("job" = JobId, Path, description = "The job.")),
    responses((status = 200, description = "In order.", body = Vec<RoundRecord>)))]
pub(super) async fn rounds(
    _: AsOperator,
    Ids(job): Ids<JobId>,
    State(app): State<App>,
) -> Result<axum::Json<Vec<RoundRecord>>, Problem> {
    Ok(axum::Json(app.endpoint.rounds(job)?))
}

/// Ends a job.
#[utoipa::path(post, path = "/jobs/{job}/cancel", tag = "operator", security(("join_token" = [])),
    params(("job" = JobId, Path, description = "The job.")),
    responses((status = 200, description = "Its summary.", body = JobSummary)))]
pub(super) async fn cancel(
    _: AsOperator,
    Ids(job): Ids<JobId>,
    State(app): State<App>,
) -> Result<axum::Json<JobSummary>, Problem> {
    Ok(axum::Json(app.endpoint.cancel(job).await?))
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
    _: AsOperator,
    Ids(job): Ids<JobId>,
    State(app): State<App>,
    query: Result<Query<After>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let malformed = |detail: String| {
        Problem::new(RefusalKind::Malformed, detail).with_status(StatusCode::BAD_REQUEST)
    };
    let Query(After { after }) = query.map_err(|error| malformed(error.body_text()))?;
    let last = match headers.get("last-event-id").map(|value| value.to_str()) {
        None => 0,
        Some(text) => text
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| malformed("Last-Event-ID must be a number".to_string()))?,
    };
    let events = app.endpoint.events(job, after.unwrap_or(last))?;
    let events = events.take_until(Box::pin(app.stopped()));
    let events = events.filter_map(|event| {
        // An event without a JSON form is none of this crate's; passing it over keeps the others coming.
        let id = event.sequence.to_string();
        let sent = Event::default().id(id).json_data(&event).ok();
        std::future::ready(sent.map(Ok::<_, Infallible>))
    });
    let keep_alive = KeepAlive::new().interval(app.config.keep_alive);
    Ok(Sse::new(events).keep_alive(keep_alive).into_response())
}
