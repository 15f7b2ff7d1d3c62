//! The caller: what the routes read from a request's head before they read anything of its body.

use std::{convert::Infallible, marker::PhantomData};

use axum::{
    extract::{FromRequestParts, Path},
    http::{header, request::Parts},
};
use serde::de::DeserializeOwned;

use super::{
    api::{BASE, WORKER_HEADER},
    app::App,
    browsers::refuse_browsers,
    callers::{Asker, Upload},
    problem::Problem,
    server::Connection,
};
use crate::{
    ids::WorkerId,
    protocol::{Scope, Token},
    report::RefusalKind,
    transport::{self, Caller, Credentials, Operator, Peer, Requester},
};

/// A number of fewer digits is a number of any object.
const LONG_NUMBER: usize = 10;

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
    let missing = "a worker shows its token: Authorization: Bearer TOKEN";
    let shown = match Bearer::from_request_parts(parts, app).await {
        Ok(Bearer(token)) => token.ok_or_else(|| unauthorized(missing)),
        Err(problem) => Err(problem),
    };
    shown.map_err(|problem| counted(parts, problem))
}

/// Counts a refusal for lack of credentials.
fn counted(parts: &Parts, problem: Problem) -> Problem {
    match parts.extensions.get::<Asker>() {
        Some(asker) => asker.refused(problem),
        None => problem,
    }
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
    asker: Option<Asker>,
    pub peer: Peer,
}

impl FromRequestParts<App> for Exchange {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Infallible> {
        let connection = parts.extensions.get::<Connection>().cloned();
        // The router's own layer has put it there.
        let asker = parts.extensions.get::<Asker>().cloned();
        let peer = asker.as_ref().map_or(Peer::Unknown, |asker| asker.peer);
        Ok(Self {
            app: app.clone(),
            connection,
            asker,
            peer,
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
        match checked.await {
            Ok(()) => self.count(requester),
            Err(refusal) => Err(self.refused(refusal.into())),
        }
    }

    /// Counts a request whose credentials are valid.
    fn count(&self, requester: &Requester) -> Result<(), Problem> {
        let Some(asker) = &self.asker else {
            return Ok(());
        };
        match requester {
            Requester::Worker(credentials) => asker.count_worker(credentials.worker),
            Requester::NewWorker { .. } => asker.count_registration(),
        }
    }

    /// What a caller is told whose credentials are not valid, or not for this.
    fn refused(&self, problem: Problem) -> Problem {
        match &self.asker {
            Some(asker) => asker.refused(problem),
            None => problem,
        }
    }

    /// Counts an upload of this worker while the returned value lives.
    pub(super) fn upload(&self, worker: WorkerId) -> Result<Option<Upload>, Problem> {
        let upload = self.asker.as_ref().map(|asker| asker.upload(worker));
        upload.transpose()
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

/// What a route asks of an operator's token.
pub(super) trait Needs {
    const SCOPE: Scope;
}

/// The route reads.
pub(super) struct Reads;
/// The route is for who submits jobs.
pub(super) struct Submits;
/// The route is for administrators.
pub(super) struct Administers;

impl Needs for Reads {
    const SCOPE: Scope = Scope::Read;
}

impl Needs for Submits {
    const SCOPE: Scope = Scope::Submit;
}

impl Needs for Administers {
    const SCOPE: Scope = Scope::Admin;
}

/// One who may act as an operator on this route.
pub(super) struct AsOperator<S = Reads> {
    pub exchange: Exchange,
    pub caller: Caller,
    needs: PhantomData<S>,
}

impl<S> AsOperator<S> {
    pub(super) fn operator(&self) -> &dyn Operator {
        &*self.exchange.app.operator
    }
}

impl<S: Needs> FromRequestParts<App> for AsOperator<S> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let Bearer(token) = Bearer::from_request_parts(parts, app).await?;
        let Ok(exchange) = Exchange::from_request_parts(parts, app).await;
        let caller = Caller::new(exchange.peer, token);
        if let Err(error) = app.operator.authorize(&caller, S::SCOPE).await {
            return Err(exchange.refused(error.into()));
        }
        if let Some(asker) = &exchange.asker {
            asker.credentials_shown();
        }
        refuse_browsers_if_open(parts, app, exchange.peer).await?;
        Ok(Self {
            exchange,
            caller,
            needs: PhantomData,
        })
    }
}

/// Keeps web pages out if this peer needs no token.
///
/// A token that was shown does not count: an open coordinator does not look at it, and a page can show any.
async fn refuse_browsers_if_open(parts: &Parts, app: &App, peer: Peer) -> Result<(), Problem> {
    let without_token = Caller::new(peer, None);
    let asked = app.operator.authorize(&without_token, Scope::Read);
    if asked.await.is_ok() {
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
                let is_long = |part: &str| {
                    part.len() >= LONG_NUMBER && part.bytes().all(|byte| byte.is_ascii_digit())
                };
                let detail = if path.split('/').any(is_long) {
                    format!("no such path: an ID in {BASE}{path} is too large")
                } else {
                    format!("no such path: each ID in {BASE}{path} must be a whole number")
                };
                Err(Problem::new(RefusalKind::NotFound, detail))
            }
        }
    }
}
