//! Who asks: what the routes read from a request's head before anything of its body is read.

use std::{convert::Infallible, net::SocketAddr};

use axum::{
    extract::{ConnectInfo, FromRequestParts, Path},
    http::{header, request::Parts},
};
use serde::de::DeserializeOwned;

use super::{
    api::WORKER_HEADER, app::App, browsers::refuse_browsers, problem::Problem, server::Connection,
};
use crate::{
    ids::WorkerId,
    protocol::Token,
    report::RefusalKind,
    transport::{self, Caller, Credentials, Operator, Peer},
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
