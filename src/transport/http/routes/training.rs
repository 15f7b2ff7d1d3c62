//! What a worker reads to train, and what it submits.

use axum::{
    body::Body,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use futures_util::TryStreamExt;
use http_body::Body as _;

use super::plain;
use crate::{
    ids::{ClientId, JobId, ModelVersion, RoundId, WorkerId},
    parameters::{Digest, DigestError},
    protocol::{DatasetShare, Failure, JobMessage, ShareEvaluation},
    report::{RefusalKind, ReportMetadata},
    transport::{
        self, BodyError, ReportBody, Request,
        body::ByteStream,
        http::{
            api::{DIGEST_HEADER, REPORT_HEADER, SAFETENSORS},
            extract::{
                Exchange, Ids, Json, SharedWorker, body_error, json_header, media_type, unsupported,
            },
            openapi::Safetensors,
            problem::Problem,
        },
    },
};

/// What was asked for.
#[utoipa::path(get, path = "/jobs/{job}/description", tag = "training", security(("worker_token" = [])),
    params(
        ("job" = JobId, Path, description = "The job."),
        ("Fedavg-Worker" = WorkerId, Header, description = "The worker that asks.")),
    responses((status = 200, description = "The job's description.", body = JobMessage)))]
pub(super) async fn description(
    SharedWorker(credentials): SharedWorker,
    Ids(job): Ids<JobId>,
    exchange: Exchange,
) -> Response {
    match exchange.handle(Request::Job { credentials, job }).await {
        transport::Response::Job(description) => axum::Json(description).into_response(),
        other => plain(other),
    }
}

/// The examples of a client.
#[utoipa::path(get, path = "/jobs/{job}/partitions/{client}", tag = "training", security(("worker_token" = [])),
    params(
        ("job" = JobId, Path, description = "The job."),
        ("client" = ClientId, Path, description = "The client."),
        ("Fedavg-Worker" = WorkerId, Header, description = "The worker that asks.")),
    responses((status = 200, description = "Indices into the training split.", body = DatasetShare)))]
pub(super) async fn partition(
    SharedWorker(credentials): SharedWorker,
    Ids((job, client)): Ids<(JobId, ClientId)>,
    exchange: Exchange,
) -> Response {
    let request = Request::Partition {
        credentials,
        job,
        client,
    };
    match exchange.handle(request).await {
        transport::Response::Partition(share) => axum::Json(share).into_response(),
        other => plain(other),
    }
}

/// Takes a client's report of a round: a safetensors body whose tensors are named `delta/NAME`.
#[utoipa::path(put, path = "/jobs/{job}/rounds/{round}/reports/{client}", tag = "training", security(("worker_token" = [])),
    params(
        ("job" = JobId, Path, description = "The job."),
        ("round" = RoundId, Path, description = "The round."),
        ("client" = ClientId, Path, description = "The client."),
        ("Fedavg-Worker" = WorkerId, Header, description = "The worker that asks."),
        ("Fedavg-Report" = String, Header, description = "`ReportMetadata` as JSON in ASCII."),
        ("Fedavg-Digest" = Option<String>, Header, description = "`crc32=` and eight hexadecimal digits: of the body.")),
    request_body(content = Safetensors, content_type = "application/octet-stream", description = "Safetensors."),
    responses((status = 204, description = "Accepted, now or by an earlier request.")))]
pub(super) async fn report(
    SharedWorker(credentials): SharedWorker,
    Ids((job, round, client)): Ids<(JobId, RoundId, ClientId)>,
    exchange: Exchange,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let metadata: ReportMetadata = json_header(&headers, REPORT_HEADER)?;
    let (bytes, length) = parameters(&headers, body, exchange.app.config.max_body)?;
    let request = Request::Report {
        credentials,
        job,
        round,
        client,
        metadata,
        body: ReportBody::Stream {
            bytes,
            length,
            digest: digest(&headers)?,
        },
    };
    Ok(plain(exchange.handle(request).await))
}

/// The body's digest, where the sender says it.
pub(super) fn digest(headers: &HeaderMap) -> Result<Option<Digest>, Problem> {
    let Some(value) = headers.get(DIGEST_HEADER) else {
        return Ok(None);
    };
    let digest = value.to_str().ok().and_then(|text| text.parse().ok());
    match digest {
        Some(digest) => Ok(Some(digest)),
        None => Err(Problem::new(
            RefusalKind::Malformed,
            format!("{DIGEST_HEADER}: {DigestError}"),
        )),
    }
}

/// A client can't do its training task.
#[utoipa::path(post, path = "/jobs/{job}/rounds/{round}/failures/{client}", tag = "training", security(("worker_token" = [])),
    params(
        ("job" = JobId, Path, description = "The job."),
        ("round" = RoundId, Path, description = "The round."),
        ("client" = ClientId, Path, description = "The client."),
        ("Fedavg-Worker" = WorkerId, Header, description = "The worker that asks.")),
    request_body = Failure,
    responses((status = 204, description = "Noted.")))]
pub(super) async fn failure(
    SharedWorker(credentials): SharedWorker,
    Ids((job, round, client)): Ids<(JobId, RoundId, ClientId)>,
    exchange: Exchange,
    Json(Failure { reason }): Json<Failure>,
) -> Response {
    let request = Request::TaskFailed {
        credentials,
        job,
        round,
        client,
        reason,
    };
    plain(exchange.handle(request).await)
}

/// What a client measured on its share of the test split.
#[utoipa::path(put, path = "/jobs/{job}/models/{version}/evaluations/{client}", tag = "training", security(("worker_token" = [])),
    params(
        ("job" = JobId, Path, description = "The job."),
        ("version" = ModelVersion, Path, description = "The version that was evaluated."),
        ("client" = ClientId, Path, description = "The client."),
        ("Fedavg-Worker" = WorkerId, Header, description = "The worker that asks.")),
    request_body = ShareEvaluation,
    responses((status = 204, description = "Noted.")))]
pub(super) async fn evaluation(
    SharedWorker(credentials): SharedWorker,
    Ids((job, version, client)): Ids<(JobId, ModelVersion, ClientId)>,
    exchange: Exchange,
    Json(evaluation): Json<ShareEvaluation>,
) -> Response {
    let request = Request::Evaluation {
        credentials,
        job,
        version,
        client,
        evaluation: evaluation.into(),
    };
    plain(exchange.handle(request).await)
}

/// The body as a stream of safetensors bytes within the limit, and its length if that is said.
pub(super) fn parameters(
    headers: &HeaderMap,
    body: Body,
    limit: u64,
) -> Result<(ByteStream, Option<u64>), Problem> {
    if media_type(headers).is_some_and(|found| !found.eq_ignore_ascii_case(SAFETENSORS)) {
        return Err(unsupported("the body must be application/octet-stream"));
    }
    let length = body.size_hint().exact();
    if length.is_some_and(|length| length > limit) {
        return Err(BodyError::TooLarge { limit }.into());
    }
    let mut taken = 0u64;
    let bytes = body
        .into_data_stream()
        .map_err(|error| body_error(error.into()))
        .and_then(move |piece| {
            taken = taken.saturating_add(piece.len() as u64);
            std::future::ready(if taken > limit {
                Err(BodyError::TooLarge { limit })
            } else {
                Ok(piece)
            })
        });
    Ok((Box::pin(bytes), length))
}
