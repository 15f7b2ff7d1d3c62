//! What the OpenAPI document says beside the routes: the title, the tokens, and the problems that each may answer with.

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ComponentsBuilder, ContentBuilder, Info, KnownFormat, ObjectBuilder, OpenApi,
        OpenApiBuilder, Ref, RefOr, ResponseBuilder, Schema, SchemaFormat, Type,
        path::{Operation, PathItem},
        security::{Http, HttpAuthScheme, SecurityScheme},
    },
};

use super::problem::{PROBLEM_JSON, Problem};
use crate::report::{RefusalKind, ReportMetadata};

/// A body of parameters, as the document shows it.
pub(super) struct Safetensors;

impl PartialSchema for Safetensors {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)))
            .description(Some(
                "A safetensors file: https://github.com/huggingface/safetensors",
            ))
            .into()
    }
}

impl ToSchema for Safetensors {}

/// The document before the routes.
pub(super) fn base() -> OpenApi {
    let mut info = Info::new("fedavg", env!("CARGO_PKG_VERSION"));
    info.description = Some(
        "A coordinator of federated averaging. Parameters travel as safetensors; what is not granted is a problem \
         document (RFC 9457)."
            .to_string(),
    );
    let bearer = || SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let components = ComponentsBuilder::new()
        .security_scheme("join_token", bearer())
        .security_scheme("worker_token", bearer())
        .schema(Problem::name(), Problem::schema())
        .schema(RefusalKind::name(), RefusalKind::schema())
        .schema(ReportMetadata::name(), ReportMetadata::schema())
        .build();
    OpenApiBuilder::new()
        .info(info)
        .components(Some(components))
        .build()
}

/// The document with the problems of every operation.
pub(super) fn finish(mut document: OpenApi) -> OpenApi {
    let schema = Ref::from_schema_name(Problem::name());
    let content = ContentBuilder::new().schema(Some(schema)).build();
    let problem = ResponseBuilder::new()
        .description("Not granted, and why.")
        .content(PROBLEM_JSON, content)
        .build();
    for operation in document.paths.paths.values_mut().flat_map(operations_mut) {
        let responses = &mut operation.responses.responses;
        responses.insert("default".to_string(), RefOr::T(problem.clone()));
    }
    document
}

fn operations_mut(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [
        &mut item.get,
        &mut item.put,
        &mut item.post,
        &mut item.delete,
        &mut item.patch,
    ]
    .into_iter()
    .flatten()
}
