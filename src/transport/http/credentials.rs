//! The caller: what the routes read from a request's head before they read anything of its body.

use std::{convert::Infallible, net::SocketAddr};

use axum::{
    extract::{ConnectInfo, FromRequestParts, Path},
    http::{header, request::Parts},
};
use serde::de::DeserializeOwned;

use super::{
    api::{BASE, WORKER_HEADER},
    app::App,
    browsers::refuse_browsers,
    problem::Problem,
    server::Connection,
};
use crate::{
    ids::WorkerId,
    protocol::Token,
    report::RefusalKind,
    transport::{self, Caller, Credentials, Operator, Peer, Requester},
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
        // A header that can't be read is refused and not passed over: its sender means to show a token, and would be
        // told that there is none.
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

/// The token that a worker shows.
async fn worker_token(parts: &mut Parts, app: &App) -> Result<Token, Problem> {
    let Bearer(token) = Bearer::from_request_parts(parts, app).await?;
    token.ok_or_else(|| unauthorized("a worker shows its token: Authorization: Bearer TOKEN"))
}

/// Checks a worker's credentials, so that nothing of its body is read if they are wrong.
async fn check_worker(
    parts: &mut Parts,
    app: &App,
    credentials: Credentials,
) -> Result<Credentials, Problem> {
    let Ok(exchange) = Exchange::from_request_parts(parts, app).await;
    let requester = Requester::Worker(credentials.clone());
    exchange.check(&requester).await?;
    Ok(credentials)
}

/// The worker that the header names, with its token, which has been checked.
pub(super) struct SharedWorker(pub Credentials);

impl FromRequestParts<App> for SharedWorker {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let token = worker_token(parts, app).await?;
        let header = parts
            .headers
            .get(WORKER_HEADER)
            .ok_or_else(|| unauthorized("a worker says its number: Fedavg-Worker: NUMBER"))?;
        let worker = header.to_str().ok().and_then(|text| text.parse().ok());
        let worker = worker.ok_or_else(|| unauthorized("Fedavg-Worker must be a number"))?;
        let credentials = Credentials { worker, token };
        check_worker(parts, app, credentials).await.map(Self)
    }
}

/// The worker that the path names, with its token, which has been checked. The path has no other variable part.
pub(super) struct NamedWorker(pub Credentials);

impl FromRequestParts<App> for NamedWorker {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let token = worker_token(parts, app).await?;
        let Ids(worker) = Ids::<WorkerId>::from_request_parts(parts, app).await?;
        let credentials = Credentials { worker, token };
        check_worker(parts, app, credentials).await.map(Self)
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
        // What axum's own server says, if the router is mounted there.
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

    /// Whether the requester may go on to its body.
    async fn check(&self, requester: &Requester) -> Result<(), Problem> {
        let checked = self.app.handler.check_requester(self.peer, requester);
        Ok(checked.await?)
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
        refuse_browsers_if_open(parts, app, exchange.peer).await?;
        Ok(Self { exchange, caller })
    }
}

/// Keeps web pages out if this peer needs no token.
///
/// A token that was shown does not count: an open coordinator does not look at it, and a page can show any.
async fn refuse_browsers_if_open(parts: &Parts, app: &App, peer: Peer) -> Result<(), Problem> {
    let without_token = Caller::new(peer, None);
    if app.operator.authorize(&without_token).await.is_ok() {
        refuse_browsers(parts, app)?;
    }
    Ok(())
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
        let requester = Requester::NewWorker {
            join_token: join_token.clone(),
        };
        exchange.check(&requester).await?;
        refuse_browsers_if_open(parts, app, exchange.peer).await?;
        Ok(Self {
            exchange,
            join_token,
        })
    }
}

/// The variable parts of the path. What is not a number names nothing.
pub(super) struct Ids<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Ids<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(ids)) => Ok(Self(ids)),
            Err(_) => {
                // The routes are below it, and it is not in `uri` any more.
                let path = parts.uri.path();
                let detail =
                    format!("no such path: each ID in {BASE}{path} must be a whole number");
                Err(Problem::new(RefusalKind::NotFound, detail))
            }
        }
    }
}
