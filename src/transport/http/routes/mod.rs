//! The routes: what each takes and answers. The router and the OpenAPI document come from the same lines, so that no
//! route is served and not documented.

mod jobs;
mod models;
mod training;
mod workers;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{StatusCode, Uri},
    middleware::map_request,
    response::{IntoResponse, Response},
    routing::any,
};
use tokio::sync::Semaphore;
use utoipa::openapi::{OpenApi, Server};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    api::BASE,
    inbound::{Inbound, Pace},
    openapi,
    problem::Problem,
};
use crate::{
    protocol::Health,
    report::RefusalKind,
    transport::{self, Handler, Operator},
};

/// The limits of the routes. Each has a default.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RouterConfig {
    /// The largest JSON body, in bytes.
    pub max_json: usize,
    /// The largest body with parameters, in bytes. The coordinator has limits of its own that know the model.
    pub max_body: u64,
    /// The most pieces (of 256 KiB) of models on disk that are in memory at once, over all downloads. If so many are
    /// on their way, the next ones are of 16 KiB.
    pub pieces: usize,
    /// A body of which nothing arrives for so long is broken off. A JSON body must be whole within this time.
    pub stall_timeout: Duration,
    /// The fewest bytes a second of a body, once it was waited for 10 s in all; the time in which the coordinator itself is
    /// busy does not count. 0: any.
    pub min_upload_rate: u64,
    /// The longest that a poll may ask to wait.
    pub max_wait: Duration,
    /// How often a silent stream of events gets a comment.
    pub keep_alive: Duration,
    /// The names, beside `localhost` and addresses, that a request without a token may name as its host. Others are refused:
    /// a web page could have made its own name mean this machine.
    pub hosts: Vec<String>,
    /// The URL that the OpenAPI document names as its server, `http://HOST:PORT`, if others reach this server by another than
    /// the one that they ask.
    pub advertised: Option<String>,
}

impl Default for RouterConfig {
    fn default() -> Self {
        Self {
            max_json: 1 << 20,
            max_body: 8 << 30,
            pieces: 32,
            stall_timeout: Duration::from_secs(60),
            min_upload_rate: 1024,
            max_wait: Duration::from_secs(300),
            keep_alive: Duration::from_secs(15),
            hosts: Vec::new(),
            advertised: None,
        }
    }
}

/// What every route has at hand.
#[derive(Clone)]
pub(super) struct App {
    pub handler: Arc<dyn Handler>,
    pub operator: Arc<dyn Operator>,
    pub config: Arc<RouterConfig>,
    /// A permit for each piece of a stored model that may be in memory.
    pub pieces: Arc<Semaphore>,
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

/// The routes of a coordinator, below `/api/v1`, as a router to mount in an axum application or to [`serve`](super::serve). It has
/// no fallback, so that it can be merged with other routers; [`no_such_path`] is one.
///
/// What is on the routes is within [`RouterConfig`]'s limits wherever they are mounted. What lives on connections is the server's
/// to do, and [`serve`](super::serve) does it. Another server must by itself:
///
/// - limit the number of connections, and the time that the head of a request may take;
/// - break off an answer of which nothing is read: a model in memory is held by whoever reads it, and
///   [`RouterConfig::pieces`] of models on disk, so that all others get small ones;
/// - say who asks, by axum's `into_make_service_with_connect_info::<SocketAddr>()`: a coordinator without a join token answers
///   its own machine alone, and nobody if it can't know;
/// - end polls and streams of events when it stops; they otherwise go on for [`RouterConfig::max_wait`], or as long as the job;
/// - hear out a sender that was refused before the end of its body, so that it gets the answer instead of a reset.
pub fn router<C: Handler + Operator>(coordinator: Arc<C>, config: RouterConfig) -> Router {
    router_of(coordinator.clone(), coordinator, config)
}

/// As [`router`], for a handler and an operator that are two: if something stands in front of a coordinator, for example.
pub fn router_of(
    handler: Arc<dyn Handler>,
    operator: Arc<dyn Operator>,
    config: RouterConfig,
) -> Router {
    let pieces = config.pieces.clamp(1, Semaphore::MAX_PERMITS);
    let pace = Pace::new(config.stall_timeout, config.min_upload_rate);
    let app = App {
        handler,
        operator,
        pieces: Arc::new(Semaphore::new(pieces)),
        config: Arc::new(config),
    };
    let (router, _) = documented();
    let guard = move |request: Request<Body>| {
        let guarded = request.map(|body| Body::new(Inbound::new(body, pace)));
        std::future::ready(guarded)
    };
    router
        .route(BASE, any(no_such_path))
        .route(&format!("{BASE}/"), any(no_such_path))
        .route(&format!("{BASE}/{{*path}}"), any(no_such_path))
        .method_not_allowed_fallback(no_such_method)
        .layer(map_request(guard))
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
async fn health(State(app): State<App>) -> Result<axum::Json<Health>, Problem> {
    Ok(axum::Json(app.operator.health().await?))
}

/// This document. Anybody may ask.
#[utoipa::path(get, path = "/openapi.json", tag = "service", security(()),
    responses((status = 200, description = "OpenAPI 3.1.", body = Object)))]
async fn document(State(app): State<App>) -> axum::Json<OpenApi> {
    let mut document = openapi_document();
    let advertised = app.config.advertised.as_ref();
    document.servers = advertised.map(|url| vec![Server::new(url)]);
    axum::Json(document)
}

/// The answer to a path that is none of a coordinator's: a fallback for routers that have none of their own.
pub async fn no_such_path(uri: Uri) -> Problem {
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
