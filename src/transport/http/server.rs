//! Listens, and serves the routes to every connection, within limits: nothing that a peer does or leaves undone holds
//! a connection forever.

use std::{future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body, http::header};
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
    inbound::{Linger, Lingering},
};
use crate::{protocol::Token, transport::peer::is_loopback};

/// The limits that live on connections. Each has a default.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerConfig {
    /// The most connections at once; further ones wait in the operating system's queue. A worker has up to three.
    pub max_connections: usize,
    /// The most bytes of a connection that are read before they are taken, at least 8 KiB; the head of a request
    /// must fit. Answers are put together in pieces until there are that many.
    pub read_buffer: usize,
    /// How long a connection may take to send the head of a request, and how long it may be idle.
    pub header_timeout: Duration,
    /// An answer of which nothing is read for so long is broken off.
    pub stall_timeout: Duration,
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
            read_buffer: 128 << 10,
            header_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(60),
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
    if is_open && !is_loopback(address.ip()) {
        return Err(BindError::NeedsJoinToken(address));
    }
    Ok(())
}

/// Listens on this address for a coordinator with this join token; port 0 is any free one. Must be called within a tokio
/// runtime.
///
/// # Errors
///
/// [`BindError`].
pub async fn listen(
    address: SocketAddr,
    join_token: Option<&Token>,
) -> Result<TcpListener, BindError> {
    check_bind(address, join_token)?;
    let listener = TcpListener::bind(address).await;
    listener.map_err(|source| BindError::Listen { address, source })
}

/// Serves a router to every connection of a listener until `shutdown` is done. Polls and streams of events of
/// [`router`](super::router) then end at once, and what else is under way has [`ServerConfig::drain_timeout`] to end.
///
/// The router may have other routes, too: yours beside those of a coordinator. A coordinator without a join token answers
/// its own machine alone; [`check_bind`] says beforehand whether an address fits.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    config: ServerConfig,
    shutdown: impl Future<Output = ()>,
) {
    let (stop, stopping) = watch::channel(false);
    let permits = Arc::new(Semaphore::new(
        // `Semaphore::new` panics above its own limit.
        config.max_connections.clamp(1, Semaphore::MAX_PERMITS),
    ));
    let config = Arc::new(config);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accept = accept(&listener, &permits);
        let (stream, peer, permit) = tokio::select! {
            accepted = accept => accepted,
            () = &mut shutdown => break,
            // Takes out connections that have ended, which a `JoinSet` keeps until somebody asks. The `accept` that
            // this drops has taken no connection.
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = Connection {
            peer,
            stopping: stopping.clone(),
        };
        let config = config.clone();
        connections.spawn(async move {
            serve_connection(stream, service, &config, connection).await;
            drop(permit);
        });
    }
    // Before the wait: new clients are refused at once instead of waiting in the queue of a server that stops.
    drop(listener);
    stop.send_replace(true);
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(config.drain_timeout, ended).await.is_err() {
        connections.shutdown().await;
    }
}

/// What a request is told of its connection, as an extension.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    pub peer: SocketAddr,
    /// Turns true when the server is to stop.
    pub stopping: watch::Receiver<bool>,
}

impl Connection {
    /// Done once the server is to stop.
    pub(super) fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut stopping = self.stopping.clone();
        async move {
            // An error means that the server is gone, and that comes to the same.
            let _ = stopping.wait_for(|stopping| *stopping).await;
        }
    }
}

/// The next connection, once there may be one more.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, Option<OwnedSemaphorePermit>) {
    // The semaphore is never closed.
    // Before `accept`: connections above the limit wait in the operating system's queue, and cost this process nothing.
    let permit = permits.clone().acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, permit),
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
    connection: Connection,
) {
    // Answers are small (a task, a verdict), and must not wait for the peer's delayed acknowledgement of the last one. A
    // failure here is one of the connection, which shows below.
    let _ = stream.set_nodelay(true);
    let io = TokioIo::new(Guarded::new(stream, config.stall_timeout));
    let stopped = connection.stopped();
    let linger = Linger {
        time: config.linger_timeout,
        bytes: config.linger_bytes,
    };
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(connection.clone());
        // A sender that asks first (`expect: 100-continue`) stops by itself when it is refused.
        let asks_first = request.headers().contains_key(header::EXPECT);
        router.call(request.map(|body| {
            if asks_first {
                Body::new(body)
            } else {
                Body::new(Lingering::new(body, linger))
            }
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
            // An idle connection ends at once, another one after the answer that is under way.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Peers break connections every day: no warning.
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
