//! The document before the routes: its title, its groups, its tokens, and the schemas that no route's body names.

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ComponentsBuilder, Info, OpenApi, OpenApiBuilder, RefOr, Schema,
        security::{Http, HttpAuthScheme, SecurityScheme},
        tag::TagBuilder,
    },
};

use crate::{
    protocol::LoggedEvent,
    report::{RefusalKind, ReportMetadata},
    transport::http::problem::Problem,
};

const DESCRIPTION: &str = "A coordinator of federated averaging. Parameters travel as safetensors. A request that is not \
granted is answered with a problem document (RFC 9457), whose `code` is for programs.

Numbers of jobs, rounds, workers and versions are unsigned 64-bit integers, those of clients 32-bit. A reader passes over \
fields of an answer that it does not know. `docs/protocol.md` tells when each request is sent.";

const TAGS: [(&str, &str); 5] = [
    (
        "operator",
        "Jobs, their models and the workers, for who shows an operator's token.",
    ),
    (
        "access",
        "Tokens, the admission of workers, and the audit, for administrators.",
    ),
    (
        "workers",
        "A worker's registration and its polls for tasks.",
    ),
    (
        "training",
        "What a worker reads for a task, and what it sends.",
    ),
    ("service", "The coordinator's health, and this document."),
];

/// The document before the routes.
pub(in crate::transport::http) fn base() -> OpenApi {
    let mut info = Info::new("fedavg", env!("CARGO_PKG_VERSION"));
    info.description = Some(DESCRIPTION.to_string());
    let join_token =
        "A token for workers that join (`fedavg token create --join`). It allows nothing else.";
    let operator_token = "An operator's token (`fedavg token create --scope`). Each operation names the scope that it needs: `read`, \
                          `submit` or `admin`; each includes those before it. A coordinator with `--open` asks its own machine for none.";
    let worker_token = "The token that the worker got when it registered.";
    let components = ComponentsBuilder::new()
        .security_scheme("join_token", bearer(join_token))
        .security_scheme("operator_token", bearer(operator_token))
        .security_scheme("worker_token", bearer(worker_token))
        .schemas_from_iter(schemas())
        .build();
    let tags = TAGS.map(|(name, description)| {
        TagBuilder::new()
            .name(name)
            .description(Some(description))
            .build()
    });
    OpenApiBuilder::new()
        .info(info)
        .tags(Some(tags))
        .components(Some(components))
        .build()
}

fn bearer(description: &str) -> SecurityScheme {
    let mut scheme = Http::new(HttpAuthScheme::Bearer);
    scheme.description = Some(description.to_string());
    SecurityScheme::Http(scheme)
}

/// The schemas of what travels in headers, in streams of events and in answers to all routes.
fn schemas() -> Vec<(String, RefOr<Schema>)> {
    let mut schemas = vec![
        (Problem::name().into(), Problem::schema()),
        (RefusalKind::name().into(), RefusalKind::schema()),
        (ReportMetadata::name().into(), ReportMetadata::schema()),
        (LoggedEvent::name().into(), LoggedEvent::schema()),
    ];
    LoggedEvent::schemas(&mut schemas);
    schemas
}
