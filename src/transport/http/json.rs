//! JSON from outside: in bodies, and in headers.

use axum::{
    body::Body,
    extract::FromRequest,
    http::{HeaderMap, Request, StatusCode},
};
use http_body::Body as _;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{
    app::{App, JsonLimits},
    content::{body_error, media_type, unsupported},
    problem::Problem,
};
use crate::{
    job::JobSpec,
    protocol::{Failure, Heartbeat, NewToken, Poll, Registration, ShareEvaluation},
    report::RefusalKind,
};

/// Larger bodies are parsed on a blocking thread: parsing this much takes about as long as handing it over.
const LARGE: usize = 64 << 10;

/// What comes as a JSON body.
pub(super) trait JsonBody: DeserializeOwned + Send + 'static {
    /// What it is, for messages.
    const WHAT: &str;

    /// The most bytes that it may have.
    fn limit(limits: &JsonLimits) -> usize;
}

macro_rules! json_bodies {
    ($($body:ty: $limit:ident, $what:literal;)*) => {
        $(impl JsonBody for $body {
            const WHAT: &str = $what;

            fn limit(limits: &JsonLimits) -> usize {
                limits.$limit
            }
        })*
    };
}

json_bodies! {
    Registration: registration, "registration";
    Heartbeat: tasks, "heartbeat";
    Poll: tasks, "poll";
    Failure: outcome, "failure";
    ShareEvaluation: outcome, "evaluation";
    JobSpec: job, "job";
    NewToken: token, "token";
}

/// A JSON body, within its limit. Take it after the extractor that checks the caller: extractors run in order.
pub(super) struct Json<T>(pub T);

impl<T: JsonBody> FromRequest<App> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request<Body>, app: &App) -> Result<Self, Problem> {
        // A page may send `text/plain` to any site, but JSON only after the browser has asked the site for permission.
        if !media_type(request.headers()).is_some_and(is_json) {
            return Err(unsupported("the body must be application/json"));
        }
        let limit = T::limit(&app.config.json);
        let whole = read_whole(request.into_body(), limit, T::WHAT);
        // For the whole body: at the least rate, a megabyte could take a quarter of an hour.
        let Ok(bytes) = timeout(app.config.stall_timeout, whole).await else {
            let detail = "the body took too long";
            return Err(Problem::new(RefusalKind::Truncated, detail));
        };
        let bytes = bytes?;
        if bytes.len() <= LARGE {
            return from_json(&bytes).map(Self);
        }
        match tokio::task::spawn_blocking(move || from_json(&bytes)).await {
            Ok(parsed) => parsed.map(Self),
            Err(error) => Err(Problem::new(RefusalKind::Busy, error.to_string())),
        }
    }
}

fn is_json(media_type: &str) -> bool {
    let lower = media_type.to_ascii_lowercase();
    lower == "application/json" || (lower.starts_with("application/") && lower.ends_with("+json"))
}

async fn read_whole(body: Body, limit: usize, what: &str) -> Result<axum::body::Bytes, Problem> {
    let length = body.size_hint().lower();
    if length > limit as u64 {
        return Err(too_large(&format!("{length} bytes"), limit, what));
    }
    let limited = http_body_util::Limited::new(body, limit);
    let collected = http_body_util::BodyExt::collect(limited).await;
    match collected {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(too_large("more bytes", limit, what))
        }
        Err(error) => Err(body_error(error).into()),
    }
}

fn too_large(found: &str, limit: usize, what: &str) -> Problem {
    let detail = format!("the {what} has {found}, and {limit} is the most");
    Problem::new(RefusalKind::TooLarge, detail)
}

/// A value from JSON.
pub(super) fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // serde would read an array as a structure's fields in order.
    if bytes.trim_ascii_start().starts_with(b"[") {
        let detail = "expected a JSON object, not an array";
        return Err(Problem::new(RefusalKind::Malformed, detail));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let read = serde_path_to_error::deserialize(&mut reader);
    let value = read.map_err(|error| {
        // A path of "." is the whole value, which needs no name.
        let path = error.path().to_string();
        let error = error.into_inner();
        let mut detail = crate::plain::plain(&error.to_string());
        if path != "." && error.is_data() {
            detail = format!("{path}: {detail}");
        }
        let problem = Problem::new(RefusalKind::Malformed, detail);
        match error.classify() {
            serde_json::error::Category::Data => problem,
            _ => problem.with_status(StatusCode::BAD_REQUEST),
        }
    })?;
    // What follows the value would otherwise be passed over.
    reader.end().map_err(|error| {
        Problem::new(
            RefusalKind::Malformed,
            crate::plain::plain(&error.to_string()),
        )
        .with_status(StatusCode::BAD_REQUEST)
    })?;
    Ok(value)
}

/// A value from JSON in a header.
pub(super) fn json_header<T: DeserializeOwned>(
    headers: &HeaderMap,
    name: &'static str,
) -> Result<T, Problem> {
    let Some(value) = headers.get(name) else {
        let detail = format!("the header {name} is missing");
        return Err(
            Problem::new(RefusalKind::Malformed, detail).with_status(StatusCode::BAD_REQUEST)
        );
    };
    from_json(value.as_bytes()).map_err(|mut problem| {
        problem.detail = format!("the header {name}: {}", problem.detail);
        problem
    })
}
