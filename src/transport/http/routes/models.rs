//! Global models by version, for workers and for operators.

use axum::{
    body::Body,
    extract::{FromRequestParts, State},
    http::{HeaderValue, header, request::Parts},
    response::{IntoResponse, Response},
};

use super::{App, plain};
use crate::{
    ids::{JobId, ModelVersion, WorkerId},
    report::RefusalKind,
    transport::{
        self, ModelBody, Request,
        http::{
            api::{SAFETENSORS, VERSION_HEADER, WORKER_HEADER},
            extract::{AsOperator, Ids, SharedWorker},
            openapi::Safetensors,
            outbound::Outbound,
            problem::Problem,
        },
    },
};

/// Who asks: a worker says its number, an operator doesn't.
pub(super) enum Reader {
    Worker(SharedWorker),
    Operator,
}

impl FromRequestParts<App> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        if parts.headers.contains_key(WORKER_HEADER) {
            let worker = SharedWorker::from_request_parts(parts, app).await?;
            return Ok(Self::Worker(worker));
        }
        AsOperator::from_request_parts(parts, app).await?;
        Ok(Self::Operator)
    }
}

/// A global model: a safetensors file.
#[utoipa::path(get, path = "/jobs/{job}/models/{version}", tag = "training",
    security(("worker_token" = []), ("join_token" = [])),
    params(
        ("job" = JobId, Path, description = "The job."),
        ("version" = String, Path, description = "The version; an operator may ask for `latest`."),
        ("Fedavg-Worker" = Option<WorkerId>, Header, description = "The worker that asks, where one does.")),
    responses((status = 200, description = "Safetensors.", body = Safetensors, content_type = "application/octet-stream",
        headers(("Fedavg-Model-Version" = ModelVersion, description = "The version.")))))]
pub(super) async fn model(
    reader: Reader,
    Ids((job, version)): Ids<(JobId, String)>,
    State(app): State<App>,
) -> Result<Response, Problem> {
    let named: Option<ModelVersion> = match version.as_str() {
        "latest" => None,
        number => Some(number.parse().map_err(|_| no_version(&version))?),
    };
    match reader {
        Reader::Operator => {
            let (version, body) = app.endpoint.model(job, named)?;
            Ok(answer(version, ModelBody::Stored(body)))
        }
        Reader::Worker(SharedWorker(credentials)) => {
            let version = named.ok_or_else(|| no_version("latest, of a worker"))?;
            let request = Request::Model {
                credentials,
                job,
                version,
            };
            Ok(match app.endpoint.handle(request).await {
                transport::Response::Model(body) => answer(version, body),
                other => plain(other),
            })
        }
    }
}

fn no_version(found: &str) -> Problem {
    Problem::new(RefusalKind::NotFound, format!("no version {found:?}"))
}

fn answer(version: ModelVersion, body: ModelBody) -> Response {
    let mut response = Body::new(Outbound::from(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(SAFETENSORS));
    headers.insert(VERSION_HEADER, HeaderValue::from(version.0));
    response
}
