//! The routes: what each takes and answers. The router and the OpenAPI document come from the same lines, so that no
//! route is served and not documented.

mod jobs;
mod models;
mod training;
mod workers;

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
};
use tokio::sync::{Semaphore, watch};
use utoipa::openapi::{OpenApi, Server};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{ServerConfig, api::BASE, endpoint::Endpoint, openapi, problem::Problem};
use crate::{report::RefusalKind, telemetry::Health, transport};

/// What every route has at hand.
#[derive(Clone)]
pub(super) struct App {
    pub endpoint: Arc<dyn Endpoint>,
    pub config: Arc<ServerConfig>,
    /// The URL by which others reach this server, where it is to be named.
    pub advertised: Option<String>,
    /// A permit for each piece of a stored model that may be in memory.
    pub pieces: Arc<Semaphore>,
    /// Turns true when the server is to stop.
    pub stopping: watch::Receiver<bool>,
}

impl App {
    /// Done once the server is to stop.
    pub(super) fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut stopping = self.stopping.clone();
        async move {
            // An error means that the server is gone, and that comes to the same.
            let _ = stopping.wait_for(|stopping| *stopping).await;
        }
    }
}

fn documented() -> (Router<App>, OpenApi) {
    let routes = OpenApiRouter::new()
        .routes(routes!(workers::register, workers::workers))
        .routes(routes!(workers::leave))
        .routes(routes!(workers::heartbeat))
        .routes(routes!(workers::poll))
        .routes(routes!(training::description))
        .routes(routes!(training::partition))
        .routes(routes!(models::model))
        .routes(routes!(models::payload))
        .routes(routes!(training::report))
        .routes(routes!(training::failure))
        .routes(routes!(training::evaluation))
        .routes(routes!(jobs::submit, jobs::jobs))
        .routes(routes!(jobs::job))
        .routes(routes!(jobs::rounds))
        .routes(routes!(jobs::events))
        .routes(routes!(jobs::cancel))
        .routes(routes!(health))
        .routes(routes!(document));
    OpenApiRouter::with_openapi(openapi::base())
        .nest(BASE, routes)
        .split_for_parts()
}

/// The router of everything.
pub(super) fn router(app: App) -> Router {
    let (router, _) = documented();
    router
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .with_state(app)
}

/// The routes as the router itself shows them.
#[cfg(test)]
pub(super) fn debug_router() -> String {
    format!("{:?}", documented().0)
}

/// The OpenAPI document of everything.
pub(super) fn openapi_document() -> OpenApi {
    let (_, document) = documented();
    openapi::finish(document)
}

/// Whether the coordinator is well. Anybody may ask.
#[utoipa::path(get, path = "/health", tag = "service", security(()),
    responses((status = 200, description = "It is.", body = Health)))]
async fn health(State(app): State<App>) -> axum::Json<Health> {
    axum::Json(app.endpoint.health())
}

/// This document. Anybody may ask.
#[utoipa::path(get, path = "/openapi.json", tag = "service", security(()),
    responses((status = 200, description = "OpenAPI 3.1.", body = Object)))]
async fn document(State(app): State<App>) -> axum::Json<OpenApi> {
    let mut document = openapi_document();
    document.servers = app.advertised.map(|url| vec![Server::new(url)]);
    axum::Json(document)
}

async fn no_such_path(uri: Uri) -> Problem {
    Problem::new(RefusalKind::NotFound, format!("no path {:?}", uri.path()))
}

async fn no_such_method(method: axum::http::Method, uri: Uri) -> Problem {
    let detail = format!("{:?} can't be asked with {method}", uri.path());
    Problem::of_http(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}

/// The answers that have no body, and those that no route expects.
fn plain(response: transport::Response) -> Response {
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
