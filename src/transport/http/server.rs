//! Listens, and serves the routes to every connection, within limits: nothing that a peer does or leaves undone holds
//! a connection forever.

use std::{
    convert::Infallible, future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, header},
};
use hyper::{Request, body::Incoming, server::conn::http1, service::Service, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::{
    callers::{Admission, CallerLimits, Connections, dress},
    guard::{Drain, Guarded},
    inbound::{Linger, Lingering},
    problem::{PROBLEM_JSON, Problem},
    tls::{Fingerprint, ServerTls, shake_hands},
};
use crate::transport::peer::is_loopback;

/// The limits that live on connections. Each has a default.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerConfig {
    /// The most connections at once; further ones wait in the operating system's queue. A worker has up to three.
    pub max_connections: usize,
    /// The most bytes of a connection that are read before they are taken, at least 8 KiB; the head of a request
    /// must fit. Answers are put together in pieces until there are that many.
    pub read_buffer: usize,
    /// How long a connection may take for TLS's handshake, then to send the head of a request, and how long it may be idle.
    pub header_timeout: Duration,
    /// An answer of which nothing is read for so long is broken off.
    pub stall_timeout: Duration,
    /// The fewest bytes a second that a reader of an answer takes, in each `download_grace` that is spent waiting for it; 0: any. Time
    /// in which the coordinator has nothing to send does not count.
    pub min_download_rate: u64,
    /// Over how much of the time that a reader is waited for its rate is measured. Default: 10 s.
    pub download_grace: Duration,
    /// How long a sender is heard on that was refused before its end, so that it gets the answer.
    pub linger_timeout: Duration,
    /// How many bytes a sender is heard on that was refused before its end.
    pub linger_bytes: u64,
    /// How long requests may go on once the server is to stop.
    pub drain_timeout: Duration,
    /// With it, connections speak TLS and nothing else; without it, as by default, plain HTTP.
    pub tls: Option<ServerTls>,
    /// With it, answers over TLS tell browsers to use nothing but TLS for so long (`Strict-Transport-Security`). Default: none.
    pub strict_transport: Option<Duration>,
    /// What each address may do. [`RouterConfig::callers`](super::RouterConfig::callers) has the limits of requests.
    pub callers: CallerLimits,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            max_connections: 32_768,
            read_buffer: 128 << 10,
            header_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(60),
            min_download_rate: 1024,
            download_grace: Duration::from_secs(10),
            linger_timeout: Duration::from_secs(10),
            linger_bytes: 64 << 20,
            drain_timeout: Duration::from_secs(5),
            tls: None,
            strict_transport: None,
            callers: CallerLimits::default(),
        }
    }
}

/// The smallest buffer that hyper takes.
pub(super) const LEAST_BUFFER: usize = 8 << 10;

/// Why a server can't listen.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BindError {
    /// An address that others can reach, of a coordinator that would ask them for no token.
    #[error("{0} can be reached from other machines, and an open coordinator asks for no token")]
    Open(SocketAddr),
    /// The operating system refuses.
    #[error("can't listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Whether a coordinator may listen on this address: an open one (`AccessConfig::open`) on loopback alone, others anywhere.
///
/// # Errors
///
/// [`BindError::Open`].
pub fn check_bind(address: SocketAddr, is_open: bool) -> Result<(), BindError> {
    if is_open && !is_loopback(address.ip()) {
        return Err(BindError::Open(address));
    }
    Ok(())
}

/// Listens on this address for a coordinator, which may be open; port 0 is any free one. Must be called within a tokio
/// runtime.
///
/// # Errors
///
/// [`BindError`].
pub async fn listen(address: SocketAddr, is_open: bool) -> Result<TcpListener, BindError> {
    check_bind(address, is_open)?;
    let listener = TcpListener::bind(address).await;
    listener.map_err(|source| BindError::Listen { address, source })
}

/// Serves a router to every connection of a listener until `shutdown` is done. Polls and streams of events of
/// [`router`](super::router) then end at once, and what else is under way has [`ServerConfig::drain_timeout`] to end.
///
/// The router may have other routes, too: yours beside those of a coordinator. An open coordinator answers its
/// own machine alone; [`check_bind`] says beforehand whether an address fits.
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
    let counts = Connections::new(config.callers.clone());
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
        let Some(admission) = counts.admit(peer.ip()) else {
            debug!(%peer, "too many connections of this address");
            refuse_connection(&stream, config.tls.is_some());
            continue;
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = Connection {
            peer,
            certificate: None,
            stopping: stopping.clone(),
            admission,
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
    /// That of the client's certificate, which one of [`ServerTls`]'s authorities has signed.
    pub certificate: Option<Fingerprint>,
    /// Turns true when the server is to stop.
    pub stopping: watch::Receiver<bool>,
    /// Counts it.
    pub admission: Arc<Admission>,
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
    let Some(tls) = &config.tls else {
        let stream = Guarded::new(stream, drain(config));
        let stream = stream.paced(connection.admission.received.clone());
        return serve_stream(stream, router, config, connection).await;
    };
    // A future of its own: what TLS needs would else be a part of each connection's in plain HTTP, too.
    Box::pin(serve_tls(stream, tls, router, config, connection)).await;
}

async fn serve_tls(
    stream: TcpStream,
    tls: &ServerTls,
    router: TowerToHyperService<Router>,
    config: &ServerConfig,
    mut connection: Connection,
) {
    let received = connection.admission.received.clone();
    // The same: a handshake has much state, and is over soon.
    let shaken = shake_hands(stream, tls, drain(config), received, linger(config));
    let shaken = Box::pin(shaken);
    let limit = stranger_idle(config);
    let shaken = tokio::select! {
        shaken = timeout(limit, shaken) => shaken,
        () = connection.stopped() => return,
    };
    match shaken {
        Ok(Some(shaken)) => {
            connection.certificate = shaken.certificate;
            serve_stream(shaken.stream, router, config, connection).await;
        }
        Ok(None) => {}
        Err(_) => debug!("a TLS handshake took too long"),
    }
}

fn drain(config: &ServerConfig) -> Drain {
    Drain {
        stall: config.stall_timeout,
        least_rate: config.min_download_rate,
        grace: config.download_grace,
    }
}

/// How long a stranger may do nothing.
fn stranger_idle(config: &ServerConfig) -> Duration {
    let idle = config.callers.stranger_idle;
    if idle.is_zero() {
        return config.header_timeout;
    }
    idle.min(config.header_timeout)
}

/// Tells a peer that its address has too many connections, if it can be told without a wait.
fn refuse_connection(stream: &TcpStream, is_tls: bool) {
    if is_tls {
        return;
    }
    let detail = "this address has too many connections";
    let problem = Problem::too_many(detail, Duration::from_secs(5));
    let body = serde_json::to_string(&problem).unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 429 Too Many Requests\r\nconnection: close\r\nretry-after: 5\r\ncontent-type: {PROBLEM_JSON}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    // It fits the system's buffer, or the peer learns it by the end of the connection.
    let _ = stream.try_write(answer.as_bytes());
}

fn linger(config: &ServerConfig) -> Linger {
    Linger {
        time: config.linger_timeout,
        bytes: config.linger_bytes,
    }
}

/// What browsers are told about TLS, if anything.
fn strict_transport(config: &ServerConfig) -> Option<HeaderValue> {
    let age = config.strict_transport.filter(|_| config.tls.is_some())?;
    HeaderValue::try_from(format!("max-age={}", age.as_secs())).ok()
}

async fn serve_stream(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    router: TowerToHyperService<Router>,
    config: &ServerConfig,
    connection: Connection,
) {
    let io = TokioIo::new(stream);
    let stopped = connection.stopped();
    let linger = linger(config);
    let admission = connection.admission.clone();
    let strict = strict_transport(config);
    let watched = connection.admission.clone();
    let idle = watched.idle_stranger(stranger_idle(config));
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(connection.clone());
        // A sender that asks first (`expect: 100-continue`) stops by itself when it is refused.
        let asks_first = request.headers().contains_key(header::EXPECT);
        let request = request.map(|body| {
            if asks_first {
                Body::new(body)
            } else {
                Body::new(Lingering::new(body, linger))
            }
        });
        let answering = admission.answering();
        let router = router.clone();
        let strict = strict.clone();
        async move {
            let answer = |request| async move {
                // A router never fails.
                let Ok(answer) = router.call(request).await;
                answer
            };
            let mut answer = dress(request, answer).await;
            if let Some(strict) = strict {
                answer
                    .headers_mut()
                    .insert(header::STRICT_TRANSPORT_SECURITY, strict);
            }
            drop(answering);
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_timeout)
        .max_buf_size(config.read_buffer.max(LEAST_BUFFER))
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = idle => {
            debug!("a stranger's connection was idle for too long");
            return;
        }
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
    fn an_open_coordinator_listens_on_loopback_alone() {
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
            assert!(check_bind(address, false).is_ok());
            assert_eq!(check_bind(address, true).is_ok(), is_loopback, "{address}");
        }
    }
}
