//! The document after the routes: what generators of clients need, made of what the derives give.

use utoipa::openapi::OpenApi;

use super::{problems, tidy, unions};

/// The document of all routes, finished.
pub(in crate::transport::http) fn finish(mut document: OpenApi) -> OpenApi {
    if let Some(components) = &mut document.components {
        let schemas = &mut components.schemas;
        // In this order: `flatten` makes the unions whose variants `name_variants` names.
        unions::flatten(schemas);
        unions::name_variants(schemas);
        tidy::drop_object_defaults(schemas);
        tidy::drop_links(schemas);
    }
    tidy::drop_null_of_parameters(&mut document);
    tidy::name_formats(&mut document);
    problems::add(&mut document);
    document
}
