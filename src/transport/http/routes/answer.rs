//! Answers that many routes share.

use axum::{
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};

use crate::{
    report::RefusalKind,
    transport::{self, http::problem::Problem},
};

/// The answer to a path that is none of a coordinator's: a fallback for routers that have none of their own.
pub async fn no_such_path(uri: Uri) -> Problem {
    Problem::new(RefusalKind::NotFound, format!("no path {:?}", uri.path()))
}

pub(in crate::transport::http) async fn no_such_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{:?} can't be asked with {method}", uri.path());
    Problem::of_http(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}

/// The answer to a query or a header that can't be read.
pub(super) fn malformed(detail: impl Into<String>) -> Problem {
    Problem::new(RefusalKind::Malformed, detail).with_status(StatusCode::BAD_REQUEST)
}

/// The answers that have no body, and those that no route expects.
pub(super) fn plain(response: transport::Response) -> Response {
    match response {
        transport::Response::Accepted => StatusCode::NO_CONTENT.into_response(),
        transport::Response::Refused(refusal) => Problem::from(refusal).into_response(),
        other => {
            tracing::error!(?other, "an answer that does not belong to its request");
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            Problem::of_http(status, "internal", "a defect of the coordinator").into_response()
        }
    }
}
