//! The problems that each operation may answer with, by status and by code.
//!
//! Most follow from what an operation takes: a token, a path, a body. [`own_refusals`] has what is its own.

use std::collections::BTreeMap;

use utoipa::{
    ToSchema,
    openapi::{
        ContentBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder,
        example::ExampleBuilder,
        path::{Operation, ParameterIn},
    },
};

use super::walk::operations;
use crate::{
    report::RefusalKind,
    transport::http::problem::{PROBLEM_JSON, Problem},
};

/// A problem that an operation may answer with.
struct Possible {
    problem: Problem,
    meaning: &'static str,
}

impl Possible {
    fn refusal(kind: RefusalKind) -> Self {
        Self {
            problem: Problem::new(kind, kind.meaning()),
            meaning: kind.meaning(),
        }
    }

    /// What can't be read at all is malformed under another status.
    fn unreadable() -> Self {
        let meaning = "JSON that is not JSON, or a header or a parameter that can't be read.";
        let problem = Problem::new(RefusalKind::Malformed, meaning);
        Self {
            problem: problem.with_status(axum::http::StatusCode::BAD_REQUEST),
            meaning,
        }
    }

    /// After some wrong tokens, the next ones are told to wait.
    fn told_to_wait() -> Self {
        let meaning = "Too many wrong tokens came from this address: wait as long as `Retry-After` says, or show a valid one.";
        let problem = Problem::new(RefusalKind::Unauthorized, meaning);
        Self {
            problem: problem.with_status(axum::http::StatusCode::TOO_MANY_REQUESTS),
            meaning,
        }
    }

    fn unsupported() -> Self {
        let meaning = "The body has another media type than the operation takes.";
        Self {
            problem: Problem::of_http(
                axum::http::StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                meaning,
            ),
            meaning,
        }
    }
}

/// Adds to each operation the problems that it may answer with.
pub(super) fn add(document: &mut OpenApi) {
    for item in document.paths.paths.values_mut() {
        for operation in operations(item) {
            add_to(operation);
        }
    }
}

fn add_to(operation: &mut Operation) {
    let mut by_status: BTreeMap<u16, Vec<Possible>> = BTreeMap::new();
    for possible in possible(operation) {
        let status = by_status.entry(possible.problem.status).or_default();
        if status
            .iter()
            .all(|known| known.problem.code != possible.problem.code)
        {
            status.push(possible);
        }
    }
    let responses = &mut operation.responses.responses;
    for (status, problems) in by_status {
        let response = responses.entry(status.to_string());
        response.or_insert_with(|| RefOr::T(response_of(&problems)));
    }
    let other = "Any other problem: `internal` (500) is a defect of the coordinator.";
    let other = ResponseBuilder::new()
        .description(other)
        .content(PROBLEM_JSON, content().build());
    responses.insert("default".to_string(), RefOr::T(other.build()));
}

fn response_of(problems: &[Possible]) -> Response {
    let mut lines = Vec::new();
    let mut content = content();
    for Possible { problem, meaning } in problems {
        lines.push(format!("`{}`: {meaning}", problem.code));
        let example = ExampleBuilder::new()
            .summary(*meaning)
            .value(serde_json::to_value(problem).ok());
        content = content.examples_from_iter([(problem.code.clone(), example)]);
    }
    ResponseBuilder::new()
        .description(lines.join("\n\n"))
        .content(PROBLEM_JSON, content.build())
        .build()
}

fn content() -> ContentBuilder {
    ContentBuilder::new().schema(Some(Ref::from_schema_name(Problem::name())))
}

/// Every problem of an operation, the commonest first.
fn possible(operation: &Operation) -> Vec<Possible> {
    let mut kinds = Vec::new();
    let security = serde_json::to_string(&operation.security).unwrap_or_default();
    if security.contains("_token") {
        kinds.extend([RefusalKind::Unauthorized, RefusalKind::Forbidden]);
    }
    let mut has_query = false;
    for parameter in operation.parameters.as_deref().unwrap_or_default() {
        match (&parameter.parameter_in, &*parameter.name) {
            (ParameterIn::Path, "job") => kinds.push(RefusalKind::UnknownJob),
            (ParameterIn::Path, "client") => kinds.push(RefusalKind::UnknownClient),
            (ParameterIn::Query, _) => has_query = true,
            _ => {}
        }
        if parameter.parameter_in == ParameterIn::Path {
            kinds.push(RefusalKind::NotFound);
        }
    }
    let takes_body = operation.request_body.is_some();
    if takes_body {
        kinds.extend([
            RefusalKind::Malformed,
            RefusalKind::TooLarge,
            RefusalKind::Truncated,
        ]);
    }
    kinds.extend(own_refusals(operation));
    kinds.push(RefusalKind::TooMany);
    let mut all: Vec<Possible> = kinds.into_iter().map(Possible::refusal).collect();
    if takes_body || has_query || operation.operation_id.as_deref() == Some("get_upload_offset") {
        all.push(Possible::unreadable());
    }
    if takes_body {
        all.push(Possible::unsupported());
    }
    if security.contains("_token") {
        all.push(Possible::told_to_wait());
    }
    all
}

/// What an operation refuses for reasons of its own.
fn own_refusals(operation: &Operation) -> &'static [RefusalKind] {
    match operation.operation_id.as_deref().unwrap_or_default() {
        "register_worker" => &[
            RefusalKind::DatasetMismatch,
            RefusalKind::Conflict,
            RefusalKind::Busy,
        ],
        "create_token" => &[RefusalKind::Storage, RefusalKind::Busy],
        "rotate_worker_token" => &[RefusalKind::Busy],
        "revoke_token" | "approve_worker" | "revoke_worker" => {
            &[RefusalKind::Conflict, RefusalKind::Storage]
        }
        "list_audit" => &[RefusalKind::Storage],
        "submit_job" => &[
            RefusalKind::InvalidJob,
            RefusalKind::Storage,
            RefusalKind::Busy,
        ],
        "cancel_job" | "pause_job" | "resume_job" | "delete_job" => &[RefusalKind::Conflict],
        "get_partition" => &[RefusalKind::NotLeased],
        "get_model" | "get_payload" => &[RefusalKind::Gone, RefusalKind::Storage],
        "send_report" | "send_rest_of_report" => &[
            RefusalKind::Late,
            RefusalKind::Duplicate,
            RefusalKind::UploadOffset,
            RefusalKind::Stale,
            RefusalKind::WrongRound,
            RefusalKind::NotInCohort,
            RefusalKind::NotLeased,
            RefusalKind::Conflict,
            RefusalKind::ExamplesExceeded,
            RefusalKind::Storage,
            RefusalKind::Busy,
        ],
        "send_failure" => &[
            RefusalKind::Late,
            RefusalKind::WrongRound,
            RefusalKind::NotInCohort,
            RefusalKind::NotLeased,
            RefusalKind::Conflict,
        ],
        "send_evaluation" => &[
            RefusalKind::Late,
            RefusalKind::NotLeased,
            RefusalKind::Conflict,
        ],
        _ => &[],
    }
}
