//! What a worker reads to train, and what it submits.

use axum::{
    body::Body,
    extract::{Query, rejection::QueryRejection},
    http::HeaderMap,
    response::{IntoResponse, Response},
};

use serde::Deserialize;

use super::answer::{malformed, plain};
use crate::{
    ids::{ClientId, JobId, ModelVersion, RoundId, WorkerId},
    job::EvalSplit,
    protocol::{DatasetPartition, Failure, JobMessage, ShareEvaluation},
    report::ReportMetadata,
    transport::{
        self, ReportBody, Request,
        http::{
            api::REPORT_HEADER,
            content::{digest, parameters},
            credentials::{Exchange, Ids, SharedWorker},
            json::{Json, json_header},
            openapi::Safetensors,
            problem::Problem,
        },
    },
};

/// What was asked for.
#[utoipa::path(get, path = "/jobs/{job}/description", operation_id = "get_description", tag = "training",
    security(("worker_token" = [])),
    params(
        ("job" = JobId, Path, description = "The job."),
        ("Fedavg-Worker" = WorkerId, Header, description = "The worker that asks.")),
    responses((status = 200, description = "The job's description.", body = JobMessage,
        example = json!({
            "job": 1,
            "spec": {
                "model": "mlp", "dataset": "digits", "seed": 1337,
                "training": {
                    "local_epochs": 1, "batch_size": 64, "optimizer": "sgd", "lr": 0.01, "momentum": 0.9,
                    "weight_decay": 0.0001, "augment": false
                },
                "encoding": { "reports": "f32", "models": "f32" },
                "settings": { "prox": 0.01 }
            },
            "frozen": true
        }))))]
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
#[utoipa::path(get, path = "/jobs/{job}/partitions/{client}", operation_id = "get_partition", tag = "training",
    security(("worker_token" = [])),
    params(
        ("job" = JobId, Path, description = "The job."),
        ("client" = ClientId, Path, description = "The client."),
        ("Fedavg-Worker" = WorkerId, Header, description = "The worker that asks.")),
    responses((status = 200, description = "Indices into the training split.", body = DatasetPartition,
        example = json!({
            "dataset": "digits", "fingerprint": "5f2c1e0b7a9d4c3f8e6b5a4d3c2b1a0f5f2c1e0b7a9d4c3f8e6b5a4d3c2b1a0f",
            "indices": [3, 11, 12, 40]
        }))))]
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

/// Takes a client's report of a round.
///
/// The body is a safetensors file with the payloads that the task expects. The payload `delta` has, for each tensor `NAME` of
/// the model that is not frozen, a tensor `delta/NAME` of the same shape with **local minus global** parameters: the values
/// after training minus those of the model that the task named, as it came and decoded. The coordinator adds the mean of the
/// deltas to the global model.
#[utoipa::path(put, path = "/jobs/{job}/rounds/{round}/reports/{client}", operation_id = "send_report", tag = "training",
    security(("worker_token" = [])),
    params(
        ("job" = JobId, Path, description = "The job."),
        ("round" = RoundId, Path, description = "The round."),
        ("client" = ClientId, Path, description = "The client."),
        ("Fedavg-Worker" = WorkerId, Header, description = "The worker that asks."),
        ("Fedavg-Report" = String, Header, description = "`ReportMetadata` as JSON in one line of ASCII.",
            example = "{\"base_version\":3,\"examples\":180,\"steps\":3,\"metrics\":{\"train_loss\":0.41}}"),
        ("Fedavg-Digest" = Option<String>, Header, description = "`crc32=` and eight hexadecimal digits: of the body.",
            pattern = "^crc32=[0-9a-f]{8}$", example = "crc32=cbf43926")),
    request_body(content = Safetensors, content_type = "application/octet-stream",
        description = "Safetensors: the tensors of the task's payloads, each named `PAYLOAD/NAME`, in the task's encodings."),
    responses((status = 204, description = "Accepted, now or by an earlier request.")))]
pub(super) async fn report(
    SharedWorker(credentials): SharedWorker,
    Ids((job, round, client)): Ids<(JobId, RoundId, ClientId)>,
    exchange: Exchange,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let _upload = exchange.upload(credentials.worker)?;
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

/// A client can't do its training task.
#[utoipa::path(post, path = "/jobs/{job}/rounds/{round}/failures/{client}", operation_id = "send_failure", tag = "training",
    security(("worker_token" = [])),
    params(
        ("job" = JobId, Path, description = "The job."),
        ("round" = RoundId, Path, description = "The round."),
        ("client" = ClientId, Path, description = "The client."),
        ("Fedavg-Worker" = WorkerId, Header, description = "The worker that asks.")),
    request_body(content = Failure, description = "Why, for people.", example = json!({ "reason": "out of memory" })),
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

#[derive(Debug, Deserialize)]
pub(super) struct EvaluationQuery {
    #[serde(default)]
    split: EvalSplit,
}

/// What a client measured on its share of a split.
#[utoipa::path(put, path = "/jobs/{job}/models/{version}/evaluations/{client}", operation_id = "send_evaluation", tag = "training",
    security(("worker_token" = [])),
    params(
        ("job" = JobId, Path, description = "The job."),
        ("version" = ModelVersion, Path, description = "The version that was evaluated."),
        ("client" = ClientId, Path, description = "The client."),
        ("split" = Option<EvalSplit>, Query, description = "The task's split. Default: the test split."),
        ("Fedavg-Worker" = WorkerId, Header, description = "The worker that asks.")),
    request_body(content = ShareEvaluation, description = "The measurements, or why there are none.", examples(
        ("measured" = (value = json!({ "evaluation": { "loss": 0.31, "accuracy": 0.91, "examples": 45 } }))),
        ("failed" = (value = json!({ "failed": "out of memory" }))))),
    responses((status = 204, description = "Noted.")))]
pub(super) async fn evaluation(
    SharedWorker(credentials): SharedWorker,
    Ids((job, version, client)): Ids<(JobId, ModelVersion, ClientId)>,
    query: Result<Query<EvaluationQuery>, QueryRejection>,
    exchange: Exchange,
    Json(evaluation): Json<ShareEvaluation>,
) -> Response {
    let of = match query {
        Ok(Query(of)) => of,
        Err(error) => return malformed(error.body_text()).into_response(),
    };
    let request = Request::Evaluation {
        credentials,
        job,
        version,
        split: of.split,
        client,
        evaluation: evaluation.into(),
    };
    plain(exchange.handle(request).await)
}
