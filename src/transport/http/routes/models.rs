//! Global models by version, for workers and for operators.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::FromRequestParts,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use headers::{AcceptRanges, ContentRange, ETag, HeaderMapExt};

use super::answer::plain;
use crate::{
    ids::{JobId, ModelVersion, WorkerId},
    parameters::{Digest, StoredBody, check_stored},
    report::RefusalKind,
    transport::{
        self, ModelBody, Request,
        http::{
            api::{DIGEST_HEADER, SAFETENSORS, VERSION_HEADER, WORKER_HEADER},
            app::App,
            credentials::{AsOperator, Exchange, Ids, SharedWorker},
            etag,
            openapi::Safetensors,
            outbound::Outbound,
            problem::Problem,
            range::Selection,
        },
        pieces::damaged,
    },
};

/// A model of more bytes may take a while to read through.
const LARGE: u64 = 1 << 20;

/// The caller: a worker says its number, an operator doesn't.
pub(super) enum Reader {
    Worker(SharedWorker),
    Operator(Box<AsOperator>),
}

impl FromRequestParts<App> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        if parts.headers.contains_key(WORKER_HEADER) {
            let worker = SharedWorker::from_request_parts(parts, app).await?;
            return Ok(Self::Worker(worker));
        }
        let operator = AsOperator::from_request_parts(parts, app).await?;
        Ok(Self::Operator(Box::new(operator)))
    }
}

/// A global model, or a part of one.
///
/// The body is a safetensors file. A worker gets it in the job's encoding for models and without frozen tensors, an operator
/// whole and in f32.
#[utoipa::path(get, path = "/jobs/{job}/models/{version}", operation_id = "get_model", tag = "training",
    security(("worker_token" = []), ("operator_token" = ["read"])),
    params(
        ("job" = JobId, Path, description = "The job."),
        ("version" = String, Path, description = "The version, a number; an operator may ask for `latest`.",
            pattern = "^([0-9]+|latest)$", example = "latest"),
        ("Fedavg-Worker" = Option<WorkerId>, Header, description = "The worker that asks, if one does."),
        ("If-None-Match" = Option<String>, Header, description = "Entity tags of models that are there already, or `*`."),
        ("Range" = Option<String>, Header, description = "One range of bytes: `bytes=5-9`, `bytes=5-` or `bytes=-5`. All else is passed over."),
        ("If-Range" = Option<String>, Header, description = "The entity tag of the model that `Range` is a part of: the whole comes if it is another by now.")),
    responses(
        (status = 200, description = "Safetensors.", body = Safetensors, content_type = "application/octet-stream",
            headers(
                ("Fedavg-Model-Version" = ModelVersion, description = "The version."),
                ("Fedavg-Digest" = String, description = "`crc32=` and eight hexadecimal digits: of the whole file."),
                ("ETag" = String, description = "A strong entity tag of the file."),
                ("Accept-Ranges" = String, description = "`bytes`."))),
        (status = 206, description = "The range that was asked for.", body = Safetensors, content_type = "application/octet-stream",
            headers(
                ("Content-Range" = String, description = "`bytes FIRST-LAST/LENGTH`."),
                ("Fedavg-Model-Version" = ModelVersion, description = "The version."),
                ("Fedavg-Digest" = String, description = "`crc32=` and eight hexadecimal digits: of the whole file."),
                ("ETag" = String, description = "A strong entity tag of the whole file."))),
        (status = 304, description = "The model is the one of an entity tag in `If-None-Match`.",
            headers(
                ("Fedavg-Model-Version" = ModelVersion, description = "The version."),
                ("Fedavg-Digest" = String, description = "`crc32=` and eight hexadecimal digits: of the whole file."),
                ("ETag" = String, description = "A strong entity tag of the file."))),
        (status = 416, description = "The file has none of the bytes that were asked for.", body = Problem,
            content_type = "application/problem+json",
            headers(("Content-Range" = String, description = "`bytes */LENGTH`.")))))]
pub(super) async fn model(
    reader: Reader,
    Ids((job, version)): Ids<(JobId, String)>,
    exchange: Exchange,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let named: Option<ModelVersion> = match version.as_str() {
        "latest" => None,
        number => Some(number.parse().map_err(|_| no_version(&version))?),
    };
    let (version, body) = match reader {
        Reader::Operator(asked) => {
            let model = asked.operator().model_body(&asked.caller, job, named);
            let (version, body) = model.await?;
            if let ModelBody::Stored(body) = &body
                && body.length() <= LARGE
            {
                // An answer this short that broke off would have no head, either, and so no reason.
                check(body).await?;
            }
            (version, body)
        }
        Reader::Worker(SharedWorker(credentials)) => {
            let version = named.ok_or_else(|| no_version("latest, of a worker"))?;
            let request = Request::Model {
                credentials,
                job,
                version,
                payload: None,
            };
            match exchange.handle(request).await {
                transport::Response::Model(body) => (version, body),
                other => return Ok(plain(other)),
            }
        }
    };
    answer(body, job, version, &exchange, &method, &headers).await
}

/// A payload that a model version offers beside the model, or a part of one.
///
/// The body is a safetensors file whose names begin with the payload's and `/`. `frozen` has the model's frozen tensors,
/// under their own names. Digest, entity tag and ranges are as for the model.
#[utoipa::path(get, path = "/jobs/{job}/models/{version}/payloads/{payload}", operation_id = "get_payload", tag = "training",
    security(("worker_token" = [])),
    params(
        ("job" = JobId, Path, description = "The job."),
        ("version" = ModelVersion, Path, description = "The version."),
        ("payload" = String, Path, description = "`frozen`, or a name that a task's `sends` has.", example = "frozen"),
        ("Fedavg-Worker" = WorkerId, Header, description = "The worker that asks."),
        ("If-None-Match" = Option<String>, Header, description = "Entity tags of payloads that are there already, or `*`."),
        ("Range" = Option<String>, Header, description = "One range of bytes."),
        ("If-Range" = Option<String>, Header, description = "The entity tag of the payload that `Range` is a part of.")),
    responses(
        (status = 200, description = "Safetensors.", body = Safetensors, content_type = "application/octet-stream"),
        (status = 206, description = "The range that was asked for.", body = Safetensors, content_type = "application/octet-stream"),
        (status = 304, description = "The payload is the one of an entity tag in `If-None-Match`."),
        (status = 416, description = "The file has none of the bytes that were asked for.", body = Problem,
            content_type = "application/problem+json")))]
pub(super) async fn payload(
    SharedWorker(credentials): SharedWorker,
    Ids((job, version, payload)): Ids<(JobId, ModelVersion, String)>,
    exchange: Exchange,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let request = Request::Model {
        credentials,
        job,
        version,
        payload: Some(payload),
    };
    match exchange.handle(request).await {
        transport::Response::Model(body) => {
            answer(body, job, version, &exchange, &method, &headers).await
        }
        other => Ok(plain(other)),
    }
}

/// A stored body, or the part of it that was asked for; or a stream, whole as it comes.
async fn answer(
    body: ModelBody,
    job: JobId,
    version: ModelVersion,
    exchange: &Exchange,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    match body {
        ModelBody::Stored(body) => {
            // It broke off a whole answer. Its bytes may have been put back meanwhile.
            if body.damage().is_some() {
                check(&body).await?;
            }
            let known = Known::of(job, version, &body).await?;
            Ok(known.answer(body, &exchange.app, method, headers))
        }
        ModelBody::Stream {
            bytes,
            length,
            digest,
        } => Ok(passed_on(version, Outbound::stream(bytes, length), digest)),
    }
}

/// Refuses a body in a file that is not as it was written.
async fn check(body: &Arc<dyn StoredBody>) -> Result<(), Problem> {
    if body.in_pieces().is_some() {
        return Ok(());
    }
    let stored = body.clone();
    let checked = tokio::task::spawn_blocking(move || check_stored(&*stored)).await;
    let checked = checked.map_err(unreadable)?;
    Ok(checked.map_err(damaged)?)
}

fn no_version(found: &str) -> Problem {
    Problem::new(RefusalKind::NotFound, format!("no version {found:?}"))
}

/// A model that comes from elsewhere: it goes out as it comes.
fn passed_on(version: ModelVersion, body: Outbound, digest: Option<Digest>) -> Response {
    let mut response = Body::new(body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(SAFETENSORS));
    headers.insert(VERSION_HEADER, HeaderValue::from(version.0));
    if let Some(digest) = digest {
        headers.insert(DIGEST_HEADER, digest_value(digest));
    }
    response
}

fn digest_value(digest: Digest) -> HeaderValue {
    // Its characters are letters, digits and an equals sign.
    HeaderValue::try_from(digest.to_string()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// What is said about a stored model, whether or not it is sent.
struct Known {
    version: ModelVersion,
    tag: ETag,
    digest: Digest,
}

impl Known {
    /// A large model in memory has its digest taken, at first, on a blocking thread.
    async fn of(
        job: JobId,
        version: ModelVersion,
        body: &Arc<dyn StoredBody>,
    ) -> Result<Self, Problem> {
        let known = if body.length() > LARGE {
            let stored = body.clone();
            let taken = tokio::task::spawn_blocking(move || Self::now(job, version, &*stored));
            taken.await.map_err(unreadable)?
        } else {
            Self::now(job, version, &**body)
        };
        known.map_err(unreadable)
    }

    fn now(
        job: JobId,
        version: ModelVersion,
        body: &dyn StoredBody,
    ) -> Result<Self, headers::Error> {
        Ok(Self {
            version,
            tag: etag::of_model(job, version, body)?,
            digest: body.digest(),
        })
    }

    fn answer(
        &self,
        body: Arc<dyn StoredBody>,
        app: &App,
        method: &Method,
        headers: &HeaderMap,
    ) -> Response {
        let length = body.length();
        // Before the range, as the standard orders.
        if etag::is_known(&self.tag, headers) {
            let nothing = Body::new(Outbound::nothing());
            return self.tell((StatusCode::NOT_MODIFIED, nothing).into_response());
        }
        // A part is defined for GET alone.
        let selection = if method == Method::GET && etag::allows_part(&self.tag, headers) {
            Selection::of(headers, length)
        } else {
            Selection::Whole
        };
        let (range, status) = match selection {
            Selection::Whole => (0..length, StatusCode::OK),
            Selection::Part(range) => (range, StatusCode::PARTIAL_CONTENT),
            Selection::Nothing => return beyond(length),
        };
        // For HEAD as well: nobody polls its body, so nothing is read.
        let outbound = Outbound::stored(body, range.clone(), &app.pieces);
        let mut response = (status, Body::new(outbound)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(SAFETENSORS));
        if status == StatusCode::PARTIAL_CONTENT
            && let Ok(range) = ContentRange::bytes(range, length)
        {
            headers.typed_insert(range);
        }
        self.tell(response)
    }

    fn tell(&self, mut response: Response) -> Response {
        let headers = response.headers_mut();
        headers.typed_insert(self.tag.clone());
        headers.typed_insert(AcceptRanges::bytes());
        headers.insert(VERSION_HEADER, HeaderValue::from(self.version.0));
        headers.insert(DIGEST_HEADER, digest_value(self.digest));
        response
    }
}

fn unreadable(error: impl ToString) -> Problem {
    Problem::new(RefusalKind::Storage, error.to_string())
}

fn beyond(length: u64) -> Response {
    let status = StatusCode::RANGE_NOT_SATISFIABLE;
    let detail = format!("the model has {length} bytes");
    let mut response = Problem::of_http(status, "range_not_satisfiable", detail).into_response();
    let unsatisfied = ContentRange::unsatisfied_bytes(length);
    response.headers_mut().typed_insert(unsatisfied);
    response
}
