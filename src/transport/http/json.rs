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
    app::App,
    content::{body_error, media_type, unsupported},
    problem::Problem,
};
use crate::{report::RefusalKind, transport::BodyError};

/// A JSON body, within the limit.
pub(super) struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<App> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request<Body>, app: &App) -> Result<Self, Problem> {
        if !media_type(request.headers()).is_some_and(is_json) {
            return Err(unsupported("the body must be application/json"));
        }
        let whole = read_whole(request.into_body(), app.config.max_json);
        let bytes = timeout(app.config.stall_timeout, whole).await;
        let late = |_| Problem::new(RefusalKind::Truncated, "the body took too long");
        from_json(&bytes.map_err(late)??).map(Self)
    }
}

fn is_json(media_type: &str) -> bool {
    let lower = media_type.to_ascii_lowercase();
    lower == "application/json" || (lower.starts_with("application/") && lower.ends_with("+json"))
}

async fn read_whole(body: Body, limit: usize) -> Result<axum::body::Bytes, Problem> {
    let too_large = || BodyError::TooLarge {
        limit: limit as u64,
    };
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large().into());
    }
    let limited = http_body_util::Limited::new(body, limit);
    let collected = http_body_util::BodyExt::collect(limited).await;
    match collected {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(too_large().into()),
        Err(error) => Err(body_error(error).into()),
    }
}

/// A value from JSON.
pub(super) fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // serde would read an array as a structure's fields in order.
    if bytes.trim_ascii_start().starts_with(b"[") {
        let detail = "expected a JSON object, not an array";
        return Err(Problem::new(RefusalKind::Malformed, detail));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        let problem = Problem::new(
            RefusalKind::Malformed,
            crate::plain::plain(&error.to_string()),
        );
        match error.classify() {
            serde_json::error::Category::Data => problem,
            _ => problem.with_status(StatusCode::BAD_REQUEST),
        }
    })
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
