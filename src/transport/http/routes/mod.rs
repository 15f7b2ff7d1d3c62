//! The routes: what each takes and answers, and which path leads to it. The router and the OpenAPI document come from the
//! same lines, so that no route is served and not documented.

mod access;
mod answer;
mod jobs;
mod list;
mod models;
mod service;
mod training;
mod uploads;
mod workers;

pub(super) use answer::no_such_method;
pub use answer::no_such_path;
use axum::Router;
#[cfg(test)]
pub(super) use uploads::integer;
use utoipa::openapi::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{api::BASE, app::App, openapi};

/// All routes, and their description.
pub(super) fn documented() -> (Router<App>, OpenApi) {
    let routes = OpenApiRouter::new()
        .routes(routes!(workers::register, workers::workers))
        .routes(routes!(workers::leave))
        .routes(routes!(workers::heartbeat))
        .routes(routes!(workers::rotate))
        .routes(routes!(workers::approve))
        .routes(routes!(workers::revoke))
        .routes(routes!(workers::poll))
        .routes(routes!(training::description))
        .routes(routes!(training::partition))
        .routes(routes!(models::model))
        .routes(routes!(models::payload))
        .routes(routes!(
            training::report,
            uploads::upload_offset,
            uploads::send_rest
        ))
        .routes(routes!(training::failure))
        .routes(routes!(training::evaluation))
        .routes(routes!(jobs::submit, jobs::jobs))
        .routes(routes!(jobs::job, jobs::delete))
        .routes(routes!(jobs::rounds))
        .routes(routes!(jobs::events))
        .routes(routes!(jobs::cancel))
        .routes(routes!(jobs::pause))
        .routes(routes!(jobs::resume))
        .routes(routes!(access::own_access))
        .routes(routes!(access::create_token, access::tokens))
        .routes(routes!(access::revoke_token))
        .routes(routes!(access::audit))
        .routes(routes!(service::health))
        .routes(routes!(service::document));
    OpenApiRouter::with_openapi(openapi::base())
        .nest(BASE, routes)
        .split_for_parts()
}
