//! Refusals on the wire: problem documents, <https://www.rfc-editor.org/rfc/rfc9457>.

use std::time::Duration;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

use super::callers::RequestId;
use crate::{
    report::{Refusal, RefusalKind},
    text::shortened,
    transport::{BodyError, OperatorError},
};

/// The media type of a problem document.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// The most bytes of a detail's beginning, and of its end. A detail may quote what was sent, a name of a megabyte for example, and is
/// for people.
const HALF_DETAIL: usize = 1000;

/// A request that is not granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// The name of the status.
    #[serde(default)]
    pub title: String,
    /// The HTTP status.
    #[serde(default)]
    pub status: u16,
    /// Why, for programs: the code of a refusal, or `method_not_allowed`, `unsupported_media_type` or `internal`.
    pub code: String,
    /// Why, for people. The middle of a very long one is left out.
    #[serde(default)]
    pub detail: String,
    /// Whether the same request may be granted later.
    #[serde(default)]
    pub transient: bool,
    /// The number of the request, which the coordinator's log has, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Seconds for `Retry-After`.
    #[serde(skip)]
    retry_after: Option<u64>,
}

impl Problem {
    /// A problem of HTTP itself, which no refusal stands for.
    pub(super) fn of_http(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        Self {
            title: status.canonical_reason().unwrap_or_default().to_string(),
            status: status.as_u16(),
            code: code.to_string(),
            detail: shortened(detail.into(), HALF_DETAIL),
            transient: false,
            request_id: None,
            retry_after: None,
        }
    }

    pub(super) fn new(kind: RefusalKind, detail: impl Into<String>) -> Self {
        Refusal::new(kind, detail).into()
    }

    /// A caller that sends more than it may, and for how long it should wait.
    pub(super) fn too_many(detail: impl Into<String>, wait: Duration) -> Self {
        Self::new(RefusalKind::TooMany, detail).retry_after(wait)
    }

    /// Tells the caller to wait so long, in whole seconds from 1.
    pub(super) fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some((wait.as_secs_f64().ceil() as u64).max(1));
        self
    }

    /// The same under another status.
    pub(super) fn with_status(mut self, status: StatusCode) -> Self {
        self.title = status.canonical_reason().unwrap_or_default().to_string();
        self.status = status.as_u16();
        self
    }

    /// The refusal that it stands for; none for a problem of HTTP itself.
    pub fn refusal(&self) -> Option<Refusal> {
        let kind = RefusalKind::ALL
            .iter()
            .find(|kind| kind.code() == self.code)?;
        Some(Refusal::new(*kind, self.detail.clone()))
    }
}

/// What a problem says for people, as an extension of the answer: for the log.
#[derive(Debug, Clone)]
pub(super) struct Told(pub String);

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self {
            transient: refusal.kind.is_transient(),
            ..Self::of_http(status_of(refusal.kind), refusal.kind.code(), refusal.detail)
        }
    }
}

/// The HTTP status that carries a refusal of this kind.
pub(super) fn status_of(kind: RefusalKind) -> StatusCode {
    match kind {
        RefusalKind::Unauthorized => StatusCode::UNAUTHORIZED,
        RefusalKind::Forbidden => StatusCode::FORBIDDEN,
        RefusalKind::UnknownJob | RefusalKind::UnknownClient | RefusalKind::NotFound => {
            StatusCode::NOT_FOUND
        }
        RefusalKind::Gone => StatusCode::GONE,
        RefusalKind::Late
        | RefusalKind::Duplicate
        | RefusalKind::UploadOffset
        | RefusalKind::Stale
        | RefusalKind::WrongRound
        | RefusalKind::NotInCohort
        | RefusalKind::NotLeased
        | RefusalKind::DatasetMismatch
        | RefusalKind::Conflict => StatusCode::CONFLICT,
        RefusalKind::Malformed | RefusalKind::ExamplesExceeded | RefusalKind::InvalidJob => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        RefusalKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        RefusalKind::Truncated => StatusCode::BAD_REQUEST,
        RefusalKind::Storage => StatusCode::INSUFFICIENT_STORAGE,
        RefusalKind::Busy => StatusCode::SERVICE_UNAVAILABLE,
        RefusalKind::TooMany => StatusCode::TOO_MANY_REQUESTS,
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        let kind = match error {
            BodyError::Broken(_) | BodyError::Changed => RefusalKind::Truncated,
            BodyError::Damaged(_) => RefusalKind::Storage,
            BodyError::TooLarge { .. } | BodyError::ModelTooLarge { .. } => RefusalKind::TooLarge,
            BodyError::Malformed(_) => RefusalKind::Malformed,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<OperatorError> for Problem {
    /// What is not a refusal comes of an operator that asks another coordinator, or of storage.
    fn from(error: OperatorError) -> Self {
        match error {
            OperatorError::Refused(refusal) => refusal.into(),
            OperatorError::Body(error) => error.into(),
            error => Self::of_http(StatusCode::BAD_GATEWAY, "internal", error.to_string()),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(mut self) -> Response {
        self.request_id = RequestId::current().map(|id| id.to_string());
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(&self)).into_response();
        response.extensions_mut().insert(Told(self.detail.clone()));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        match status {
            StatusCode::UNAUTHORIZED => {
                // The standard wants it with each 401.
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                let seconds = self.retry_after.unwrap_or(5);
                headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            _ => {}
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_comes_back_as_it_was() {
        for kind in RefusalKind::ALL {
            let refusal = Refusal::new(*kind, "why");
            let problem = Problem::from(refusal.clone());
            let text = serde_json::to_string(&problem).unwrap();
            let back: Problem = serde_json::from_str(&text).unwrap();
            assert_eq!(back.refusal(), Some(refusal));
            assert_eq!(
                problem.into_response().status(),
                status_of(*kind),
                "{kind:?}"
            );
        }
    }

    #[test]
    fn a_detail_that_quotes_what_was_sent_stays_short() {
        let detail = format!("model {:?} is not known", "m".repeat(1 << 20));
        let problem = Problem::new(RefusalKind::InvalidJob, detail);
        assert!(problem.detail.len() < 3 * HALF_DETAIL);
        assert!(problem.detail.ends_with("is not known"));
    }

    #[test]
    fn a_code_of_http_itself_is_no_refusal() {
        let problem = Problem::of_http(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "");
        assert_eq!(problem.refusal(), None);
    }
}
