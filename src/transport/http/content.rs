//! What a request's body is: its media type, its digest, and its bytes within the limit.

use axum::{
    body::Body,
    http::{HeaderMap, StatusCode, header},
};
use futures_util::{FutureExt, TryStreamExt};
use http_body::Body as _;

use super::{
    api::{DIGEST_HEADER, SAFETENSORS},
    problem::Problem,
};
use crate::{
    parameters::{Digest, DigestError},
    report::RefusalKind,
    transport::{BodyError, ByteStream},
};

/// The media type of the body, without its parameters.
pub(super) fn media_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().unwrap_or("");
    value.split(';').next().map(str::trim)
}

pub(super) fn unsupported(detail: &str) -> Problem {
    let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    Problem::of_http(status, "unsupported_media_type", detail)
}

/// The body's digest, if the sender says it.
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

/// The body as a stream of safetensors bytes, and its length if that is said. The stream ends with an error as soon as the
/// body is known to exceed the limit; that is at once if its length says so, before a byte is read.
///
/// An error of the stream, not an answer: the coordinator then notes that this client's report was refused. Without that,
/// it would give the task to the worker again and again.
pub(super) fn parameters(
    headers: &HeaderMap,
    body: Body,
    limit: u64,
) -> Result<(ByteStream, Option<u64>), Problem> {
    parameters_as(&[SAFETENSORS], headers, body, limit)
}

/// The same for a body of one of these media types.
pub(super) fn parameters_as(
    expected: &[&str],
    headers: &HeaderMap,
    body: Body,
    limit: u64,
) -> Result<(ByteStream, Option<u64>), Problem> {
    if let Some(found) = media_type(headers)
        && !expected.iter().any(|one| found.eq_ignore_ascii_case(one))
    {
        let names = expected.join(" or ");
        return Err(unsupported(&format!("the body must be {names}")));
    }
    let length = body.size_hint().exact();
    if length.is_some_and(|length| length > limit) {
        let refused = std::future::ready(Err(BodyError::TooLarge { limit }));
        return Ok((Box::pin(refused.into_stream()), length));
    }
    // A chunked body has not said its length.
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

/// The error of a body, if axum has wrapped it.
pub(super) fn body_error(error: Box<dyn std::error::Error + Send + Sync>) -> BodyError {
    // axum wraps the errors of bodies. Inside is the reason that the sender should learn: too slow, or too large.
    let error = match error.downcast::<axum::Error>() {
        Ok(wrapped) => wrapped.into_inner(),
        Err(error) => error,
    };
    match error.downcast::<BodyError>() {
        Ok(error) => *error,
        Err(error) => BodyError::Broken(error.to_string().into()),
    }
}
