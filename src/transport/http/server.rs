//! Listens, and serves the routes to every connection, within limits: nothing that a peer does or leaves undone holds
//! a connection for ever.

use std::{future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Router, http::header};
use hyper::{Request, body::Incoming, server::conn::http1, service::Service, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::{
    guard::Guarded,
    inbound::{Inbound, Linger},
    routes::{self, App},
};
use crate::transport::{Handler, Operator, Token};

/// The limits of a server. Each has a default.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The most connections at once; further ones wait in the operating system's queue. A worker has up to three.
    pub max_connections: usize,
    /// The largest JSON body, in bytes.
    pub max_json: usize,
    /// The largest body with parameters, in bytes. The coordinator has limits of its own that know the model.
    pub max_body: u64,
    /// The most bytes of a connection that are read ahead of whoever takes them, at least 8 KiB; the head of a request
    /// must fit. Answers are put together in pieces until there are so many.
    pub read_buffer: usize,
    /// The most pieces (of 256 KiB) of models on disk that are in memory at once, over all downloads. Where so many are
    /// on their way, the next ones wait for their turn.
    pub pieces: usize,
    /// How long a connection may take to send the head of a request, and how long it may be idle.
    pub header_timeout: Duration,
    /// A body of which nothing arrives for so long is broken off, and so is an answer of which nothing is read. A JSON
    /// body must be whole within this time.
    pub stall_timeout: Duration,
    /// The longest that a poll may ask to wait.
    pub max_wait: Duration,
    /// How often a silent stream of events gets a comment.
    pub keep_alive: Duration,
    /// How long a sender is heard on that was refused before its end, so that it gets the answer.
    pub linger_timeout: Duration,
    /// How many bytes a sender is heard on that was refused before its end.
    pub linger_bytes: u64,
    /// How long requests may go on once the server is to stop.
    pub drain_timeout: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            max_connections: 32_768,
            max_json: 1 << 20,
            max_body: 8 << 30,
            read_buffer: 128 << 10,
            pieces: 32,
            header_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(60),
            max_wait: Duration::from_secs(300),
            keep_alive: Duration::from_secs(15),
            linger_timeout: Duration::from_secs(10),
            linger_bytes: 64 << 20,
            drain_timeout: Duration::from_secs(5),
        }
    }
}

/// The smallest buffer that hyper takes.
pub(super) const LEAST_BUFFER: usize = 8 << 10;

/// Why a server can't listen.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BindError {
    /// An address that others can reach, and nothing that keeps them out.
    #[error("{0} can be reached from other machines: listening there needs a join token")]
    NeedsJoinToken(SocketAddr),
    /// The operating system refuses.
    #[error("can't listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Whether a coordinator with this join token may listen on this address: loopback, or with a token anywhere.
///
/// # Errors
///
/// [`BindError::NeedsJoinToken`].
pub fn check_bind(address: SocketAddr, join_token: Option<&Token>) -> Result<(), BindError> {
    let is_open = join_token.is_none_or(|token| token.0.is_empty());
    match is_open && !address.ip().to_canonical().is_loopback() {
        true => Err(BindError::NeedsJoinToken(address)),
        false => Ok(()),
    }
}

/// A server that listens and does not serve yet.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    app: App,
    stop: watch::Sender<bool>,
}

impl Server {
    /// Listens on this address; port 0 is any free one. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`BindError::NeedsJoinToken`] for an address other than loopback where the coordinator takes everybody for an
    /// operator, and [`BindError::Listen`].
    pub async fn bind<C: Handler + Operator>(
        address: SocketAddr,
        config: ServerConfig,
        coordinator: Arc<C>,
    ) -> Result<Self, BindError> {
        if Operator::authorize(&*coordinator, None).is_ok() {
            check_bind(address, None)?;
        }
        let listen = |source| BindError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let (stop, stopping) = watch::channel(false);
        let app = App {
            endpoint: coordinator,
            pieces: Arc::new(Semaphore::new(
                config.pieces.clamp(1, Semaphore::MAX_PERMITS),
            )),
            config: Arc::new(config),
            advertised: None,
            stopping,
        };
        Ok(Self {
            listener,
            address,
            app,
            stop,
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Has the OpenAPI document name this URL as its server: `http://HOST:PORT`, by which others reach this one where it
    /// is not the address that they ask. Must be called before [`Server::serve`].
    pub fn advertise(&mut self, url: impl Into<String>) {
        self.app.advertised = Some(url.into());
    }

    /// Serves until `shutdown` is done. Polls and streams of events then end at once, and what else is under way has
    /// [`ServerConfig::drain_timeout`] to end.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let config = self.app.config.clone();
        let router = routes::router(self.app.clone());
        let permits = Arc::new(Semaphore::new(config.max_connections));
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        loop {
            let accept = accept(&self.listener, &permits);
            let (stream, permit) = tokio::select! {
                accepted = accept => accepted,
                () = &mut shutdown => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            };
            let service = TowerToHyperService::new(router.clone());
            let stopped = self.app.stopped();
            let config = config.clone();
            connections.spawn(async move {
                serve_connection(stream, service, &config, stopped).await;
                drop(permit);
            });
        }
        drop(self.listener);
        self.stop.send_replace(true);
        let ended = async { while connections.join_next().await.is_some() {} };
        if timeout(config.drain_timeout, ended).await.is_err() {
            connections.shutdown().await;
        }
    }
}

/// The next connection, once there may be one more.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    // The semaphore is never closed.
    let permit = permits.clone().acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, permit),
            Err(error) => {
                // Too many open files, mostly: the listener stays readable, so that trying at once would spin.
                warn!(%error, "can't accept a connection");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve_connection(
    stream: TcpStream,
    router: TowerToHyperService<Router>,
    config: &ServerConfig,
    stopped: impl Future<Output = ()>,
) {
    // A failure here is one of the connection, which shows below.
    let _ = stream.set_nodelay(true);
    let io = TokioIo::new(Guarded::new(stream, config.stall_timeout));
    let stall = config.stall_timeout;
    let linger = Linger {
        time: config.linger_timeout,
        bytes: config.linger_bytes,
    };
    let service = service_fn(move |request: Request<Incoming>| {
        // Who asks before sending stops by itself when refused.
        let asks_first = request.headers().contains_key(header::EXPECT);
        router.call(request.map(|body| match Inbound::new(body, stall) {
            body if asks_first => body,
            body => body.with_linger(linger),
        }))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_timeout)
        .max_buf_size(config.read_buffer.max(LEAST_BUFFER))
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection broke");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_addresses_than_loopback_need_a_token() {
        let token = Token("secret".to_string());
        for (address, is_loopback) in [
            ("127.0.0.1:8000", true),
            ("127.9.9.9:8000", true),
            ("[::1]:8000", true),
            ("[::ffff:127.0.0.1]:8000", true),
            ("0.0.0.0:8000", false),
            ("[::]:8000", false),
            ("100.64.0.1:8000", false),
        ] {
            let address = address.parse().unwrap();
            assert!(check_bind(address, Some(&token)).is_ok());
            assert_eq!(check_bind(address, None).is_ok(), is_loopback, "{address}");
            let empty = Token(String::new());
            assert_eq!(check_bind(address, Some(&empty)).is_ok(), is_loopback);
        }
    }
}
