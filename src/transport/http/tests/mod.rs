//! Both ends over loopback, with a coordinator that is made up.

mod bad_input;
mod callers;
mod conformance;
mod digests;
mod document;
mod fake;
mod fuzz;
mod headers;
mod limits;
mod models;
mod operator;
mod resume;
mod strangers;
mod tls;
mod uploads;
mod worker;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::oneshot, task::JoinHandle};

use super::{
    ClientConfig, HttpTransport, OperatorClient, RouterConfig, ServerConfig, listen, no_such_path,
    router, serve,
};
use crate::{
    ids::WorkerId,
    protocol::Token,
    transport::{Caller, Credentials, Peer},
};
use fake::Fake;

/// The operator that asks; the client shows its own token.
const HERE: Caller = Caller {
    peer: Peer::InProcess,
    token: None,
};

#[derive(Default)]
struct Limits {
    router: RouterConfig,
    server: ServerConfig,
}

impl Limits {
    fn with(change: impl FnOnce(&mut Self)) -> Self {
        let mut limits = Self::default();
        change(&mut limits);
        limits
    }
}

/// A server on a free port.
struct Running {
    address: SocketAddr,
    fake: Arc<Fake>,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

impl Running {
    async fn start(fake: Fake, limits: Limits) -> Self {
        let fake = Arc::new(fake);
        let any = "127.0.0.1:0".parse().unwrap();
        let listener = listen(any, true).await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let address = listener.local_addr().unwrap();
        let router = router(fake.clone(), limits.router).fallback(no_such_path);
        let ended = tokio::spawn(serve(listener, router, limits.server, async {
            let _ = stopped.await;
        }));
        Self {
            address,
            fake,
            stop,
            ended,
        }
    }

    async fn open() -> Self {
        Self::start(Fake::open(), Limits::default()).await
    }

    fn worker(&self) -> HttpTransport {
        self.worker_with(ClientConfig::default())
    }

    fn worker_with(&self, config: ClientConfig) -> HttpTransport {
        HttpTransport::new(&self.address.to_string(), config).unwrap()
    }

    fn operator(&self, token: Option<&str>) -> OperatorClient {
        let token = token.map(|token| Token(token.to_string()));
        OperatorClient::new(&self.address.to_string(), token, ClientConfig::default()).unwrap()
    }

    /// Sends these bytes, and reads until the other side closes.
    async fn raw(&self, request: impl Into<Vec<u8>>) -> String {
        String::from_utf8_lossy(&self.raw_bytes(request).await).into_owned()
    }

    async fn raw_bytes(&self, request: impl Into<Vec<u8>>) -> Vec<u8> {
        let (address, request) = (self.address, request.into());
        let exchange = move || {
            let mut stream = TcpStream::connect(address).unwrap();
            let limit = Some(Duration::from_secs(20));
            stream.set_read_timeout(limit).unwrap();
            stream.set_write_timeout(limit).unwrap();
            stream.write_all(&request).unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            answer
        };
        tokio::task::spawn_blocking(exchange).await.unwrap()
    }
}

/// A worker that the made-up coordinator knows: 1 or 2.
fn credentials(worker: u64) -> Credentials {
    Credentials {
        worker: WorkerId(worker),
        token: Token(format!("token-{worker}")),
    }
}
