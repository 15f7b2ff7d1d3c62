//! What the routes read from a request. What is ill-formed is a [`Problem`] here, before a route sees it.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
};

use axum::{
    body::Body,
    extract::{ConnectInfo, FromRequest, FromRequestParts, Path},
    http::{HeaderMap, Request, StatusCode, header, request::Parts},
};
use http_body::Body as _;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{api::WORKER_HEADER, problem::Problem, routes::App, server::Connection};
use crate::{
    ids::WorkerId,
    protocol::Token,
    report::RefusalKind,
    transport::{self, BodyError, Caller, Credentials, Operator, Peer},
};

/// The token that was shown, if one was.
pub(super) struct Bearer(pub Option<Token>);

impl<S: Sync> FromRequestParts<S> for Bearer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get(header::AUTHORIZATION) else {
            return Ok(Self(None));
        };
        let (scheme, token) = value
            .to_str()
            .ok()
            .and_then(|text| text.trim().split_once(' '))
            .unwrap_or_default();
        if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() {
            Ok(Self(Some(Token(token.trim().to_string()))))
        } else {
            Err(unauthorized("Authorization must be \"Bearer TOKEN\""))
        }
    }
}

fn unauthorized(detail: &str) -> Problem {
    Problem::new(RefusalKind::Unauthorized, detail)
}

/// A worker's token.
pub(super) struct WorkerToken(Token);

impl<S: Sync> FromRequestParts<S> for WorkerToken {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Bearer(token) = Bearer::from_request_parts(parts, state).await?;
        token
            .map(Self)
            .ok_or_else(|| unauthorized("a worker shows its token: Authorization: Bearer TOKEN"))
    }
}

impl WorkerToken {
    /// The credentials of the worker that the path names.
    pub(super) fn of(self, worker: WorkerId) -> Credentials {
        Credentials {
            worker,
            token: self.0,
        }
    }
}

/// The worker that the header names, with its token.
pub(super) struct SharedWorker(pub Credentials);

impl<S: Sync> FromRequestParts<S> for SharedWorker {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let token = WorkerToken::from_request_parts(parts, state).await?;
        let header = parts
            .headers
            .get(WORKER_HEADER)
            .ok_or_else(|| unauthorized("a worker says its number: Fedavg-Worker: NUMBER"))?;
        let worker = header.to_str().ok().and_then(|text| text.parse().ok());
        let worker = worker.ok_or_else(|| unauthorized("Fedavg-Worker must be a number"))?;
        Ok(Self(token.of(worker)))
    }
}

/// The coordinator, as a request sees it.
pub(super) struct Exchange {
    pub app: App,
    connection: Option<Connection>,
    pub peer: Peer,
}

impl FromRequestParts<App> for Exchange {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Infallible> {
        let connection = parts.extensions.get::<Connection>().cloned();
        // Of a server of the user's own.
        let foreign = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let address = match (&connection, foreign) {
            (Some(connection), _) => Some(connection.peer),
            (None, Some(ConnectInfo(address))) => Some(*address),
            (None, None) => None,
        };
        Ok(Self {
            app: app.clone(),
            connection,
            peer: address.map_or(Peer::Unknown, Peer::Address),
        })
    }
}

impl Exchange {
    /// Has a worker's request answered.
    pub(super) async fn handle(&self, request: transport::Request) -> transport::Response {
        self.app.handler.handle(self.peer, request).await
    }

    /// Done once the server is to stop, if it says so.
    pub(super) fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        let stopped = self.connection.as_ref().map(Connection::stopped);
        async {
            match stopped {
                Some(stopped) => stopped.await,
                None => std::future::pending().await,
            }
        }
    }
}

/// One who may act as an operator.
pub(super) struct AsOperator {
    pub exchange: Exchange,
    pub caller: Caller,
}

impl AsOperator {
    pub(super) fn operator(&self) -> &dyn Operator {
        &*self.exchange.app.operator
    }
}

impl FromRequestParts<App> for AsOperator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let Bearer(token) = Bearer::from_request_parts(parts, app).await?;
        let Ok(exchange) = Exchange::from_request_parts(parts, app).await;
        let caller = Caller::new(exchange.peer, token);
        app.operator.authorize(&caller).await?;
        if caller.token.is_none() {
            refuse_browsers(parts, app)?;
        }
        Ok(Self { exchange, caller })
    }
}

/// One who registers as a worker, with the join token that was shown.
pub(super) struct Registrant {
    pub exchange: Exchange,
    pub join_token: Option<Token>,
}

impl FromRequestParts<App> for Registrant {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let Bearer(join_token) = Bearer::from_request_parts(parts, app).await?;
        let Ok(exchange) = Exchange::from_request_parts(parts, app).await;
        if join_token.is_none() {
            refuse_browsers(parts, app)?;
        }
        Ok(Self {
            exchange,
            join_token,
        })
    }
}

/// Keeps out requests without a token that a web page in a browser on this machine can make: those that say so, and those
/// for a host that is neither this machine nor configured, which is how a page makes its own name mean this machine.
fn refuse_browsers(parts: &Parts, app: &App) -> Result<(), Problem> {
    let refuse = |detail: String| Err(Problem::new(RefusalKind::Forbidden, detail));
    if parts.headers.contains_key(header::ORIGIN) {
        return refuse("a web page can't use a coordinator without a join token".to_string());
    }
    let Some(host) = parts.headers.get(header::HOST) else {
        return Ok(());
    };
    let host = host.to_str().unwrap_or_default();
    let name = host_name(host);
    let is_known = is_this_machine(name)
        || app
            .config
            .hosts
            .iter()
            .any(|known| known.eq_ignore_ascii_case(name));
    if is_known {
        return Ok(());
    }
    refuse(format!(
        "a coordinator without a join token is not asked as {name:?}: ask for localhost, or start it with --allow-host"
    ))
}

/// A host without its port.
fn host_name(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split_once(':').map_or(host, |(name, _)| name),
    }
}

/// Whether no name server has a say in what this name means.
fn is_this_machine(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    lower == "localhost" || lower.ends_with(".localhost") || name.parse::<IpAddr>().is_ok()
}

/// The variable parts of the path. What is not a number names nothing.
pub(super) struct Ids<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Ids<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let ids = Path::<T>::from_request_parts(parts, state).await;
        ids.map(|Path(ids)| Self(ids))
            .map_err(|error| Problem::new(RefusalKind::NotFound, error.body_text()))
    }
}

/// A JSON body, within the limit.
pub(super) struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<App> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request<Body>, app: &App) -> Result<Self, Problem> {
        if !media_type(request.headers()).is_some_and(is_json) {
            return Err(unsupported("the body must be application/json"));
        }
        let whole = read_whole(request.into_body(), app.config.max_json);
        let bytes = timeout(app.config.stall_timeout, whole).await;
        let late = |_| Problem::new(RefusalKind::Truncated, "the body took too long");
        from_json(&bytes.map_err(late)??).map(Self)
    }
}

/// The media type of the body, without its parameters.
pub(super) fn media_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().unwrap_or("");
    value.split(';').next().map(str::trim)
}

fn is_json(media_type: &str) -> bool {
    let lower = media_type.to_ascii_lowercase();
    lower == "application/json" || (lower.starts_with("application/") && lower.ends_with("+json"))
}

pub(super) fn unsupported(detail: &str) -> Problem {
    let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    Problem::of_http(status, "unsupported_media_type", detail)
}

async fn read_whole(body: Body, limit: usize) -> Result<axum::body::Bytes, Problem> {
    let too_large = || BodyError::TooLarge {
        limit: limit as u64,
    };
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large().into());
    }
    let limited = http_body_util::Limited::new(body, limit);
    let collected = http_body_util::BodyExt::collect(limited).await;
    match collected {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(too_large().into()),
        Err(error) => Err(body_error(error).into()),
    }
}

/// The error of a body, if axum has wrapped it.
pub(super) fn body_error(error: Box<dyn std::error::Error + Send + Sync>) -> BodyError {
    let error = match error.downcast::<axum::Error>() {
        Ok(wrapped) => wrapped.into_inner(),
        Err(error) => error,
    };
    match error.downcast::<BodyError>() {
        Ok(error) => *error,
        Err(error) => BodyError::Broken(error.to_string().into()),
    }
}

/// A value from JSON.
pub(super) fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // serde would read an array as a structure's fields in order.
    if bytes.trim_ascii_start().starts_with(b"[") {
        let detail = "expected a JSON object, not an array";
        return Err(Problem::new(RefusalKind::Malformed, detail));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        let problem = Problem::new(RefusalKind::Malformed, error.to_string());
        match error.classify() {
            serde_json::error::Category::Data => problem,
            _ => problem.with_status(StatusCode::BAD_REQUEST),
        }
    })
}

/// A value from JSON in a header.
pub(super) fn json_header<T: DeserializeOwned>(
    headers: &HeaderMap,
    name: &'static str,
) -> Result<T, Problem> {
    let Some(value) = headers.get(name) else {
        let detail = format!("the header {name} is missing");
        return Err(
            Problem::new(RefusalKind::Malformed, detail).with_status(StatusCode::BAD_REQUEST)
        );
    };
    from_json(value.as_bytes()).map_err(|mut problem| {
        problem.detail = format!("the header {name}: {}", problem.detail);
        problem
    })
}
