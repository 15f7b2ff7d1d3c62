//! The router: the routes, with what guards them and what they have at hand.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    middleware::{Next, from_fn_with_state, map_request},
    response::{IntoResponse, Response},
    routing::any,
};
use tokio::sync::Semaphore;
use tracing::debug;
use utoipa::openapi::{OpenApi, Server};

use super::{
    api::BASE,
    app::{App, RouterConfig},
    callers::{Asker, Requests, dress},
    inbound::{Inbound, Pace},
    openapi,
    problem::Told,
    routes::{documented, no_such_method, no_such_path},
};
use crate::{
    text::printable,
    transport::{Handler, Operator},
};

/// The most characters of a refusal's reason in the log.
const LONGEST_DETAIL: usize = 500;

/// The routes of a coordinator, below `/api/v1`, as a router to mount in an axum application or to [`serve`](super::serve).
/// It has no fallback, so that it can be merged with other routers; [`no_such_path`] is one.
///
/// What is on the routes is within [`RouterConfig`]'s limits wherever they are mounted. What lives on connections is the
/// server's to do, and [`serve`](super::serve) does it. Another server must by itself:
///
/// - limit the number of connections, and the time that the head of a request may take;
/// - break off an answer of which nothing is read: a model in memory is held as long as somebody reads it, and
///   [`RouterConfig::pieces`] of models on disk, so that all others get small ones;
/// - know the caller's address, by axum's `into_make_service_with_connect_info::<SocketAddr>()`: an open
///   coordinator answers its own machine alone, and nobody if it can't know;
/// - end polls and streams of events when it stops; they otherwise go on for [`RouterConfig::max_wait`], or as long as the
///   job;
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
    // `Semaphore::new` panics above its own limit, and none at all would let nothing through.
    let pieces = config.pieces.clamp(1, Semaphore::MAX_PERMITS);
    let submissions = config.max_submissions.clamp(1, Semaphore::MAX_PERMITS);
    let pace = Pace {
        stall: config.stall_timeout,
        least_rate: config.min_upload_rate,
        grace: config.upload_grace,
    };
    let (router, document) = documented();
    let mut document = openapi::finish(document);
    if let Some(url) = &config.advertised {
        document.servers = Some(vec![Server::new(url)]);
    }
    let app = App {
        handler,
        operator,
        pieces: Arc::new(Semaphore::new(pieces)),
        submissions: Arc::new(Semaphore::new(submissions)),
        requests: Arc::new(Requests::new(config.callers.clone())),
        config: Arc::new(config),
        document: Arc::new(document),
    };
    router
        // Routes and not a fallback, which would keep this router from being merged with others.
        .route(BASE, any(no_such_path))
        .route(&format!("{BASE}/"), any(no_such_path))
        .route(&format!("{BASE}/{{*path}}"), any(no_such_path))
        .method_not_allowed_fallback(no_such_method)
        // Here and not on the connection: bodies keep the pace on other servers, too.
        .layer(map_request(move |request: Request<Body>| {
            let guarded = request.map(|body| Body::new(Inbound::new(body, pace)));
            std::future::ready(guarded)
        }))
        // The last layer is the first to see a request.
        .layer(from_fn_with_state(app.clone(), admit))
        .with_state(app)
}

/// Finds out who asks, and refuses above the address' rate of requests.
async fn admit(State(app): State<App>, request: Request, next: Next) -> Response {
    let answer = |mut request: Request| async move {
        let asker = Asker::of(&request, &app.requests);
        let address = asker.peer.address();
        let response = match asker.count_request() {
            Ok(()) => {
                request.extensions_mut().insert(asker);
                next.run(request).await
            }
            Err(problem) => problem.into_response(),
        };
        log_refusal(address, &response);
        response
    };
    dress(request, answer).await
}

/// Logs a request that was refused. The line has the number of the request, which its answer has, too.
fn log_refusal(address: Option<SocketAddr>, response: &Response) {
    let Some(Told(detail)) = response.extensions().get() else {
        return;
    };
    let status = response.status().as_u16();
    let address = address.map(|address| address.ip().to_canonical());
    debug!(
        status,
        from = address.map(tracing::field::display),
        "refused: {}",
        printable(detail, LONGEST_DETAIL)
    );
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
