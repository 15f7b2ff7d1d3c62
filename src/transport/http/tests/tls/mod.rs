//! TLS, between both ends and against what else may connect.

mod certificates;
mod hostile;
mod trust;

use std::sync::Arc;

use super::{Limits, Running, fake::Fake};
use crate::transport::{
    TransportError,
    http::{ClientConfig, ClientTls, HttpTransport, Identity, ServerTls, Trust},
};
use certificates::own;

impl Running {
    /// A server with this TLS.
    async fn secure(tls: ServerTls, change: impl FnOnce(&mut Limits)) -> Self {
        let limits = Limits::with(|limits| {
            limits.server.tls = Some(tls);
            change(limits);
        });
        Self::start(Fake::open(), limits).await
    }

    /// A client with this scheme and host, which opens a new connection for each request.
    fn client(&self, place: &str, tls: ClientTls) -> HttpTransport {
        let config = ClientConfig {
            tls,
            idle_timeout: std::time::Duration::ZERO,
            ..ClientConfig::default()
        };
        let url = format!("{place}:{}", self.address.port());
        HttpTransport::new(&url, config).unwrap()
    }

    fn pinned(&self, identity: &Identity) -> HttpTransport {
        let trust = Trust::Pinned(identity.fingerprint());
        self.client("https://127.0.0.1", ClientTls::new(trust))
    }
}

/// A server's TLS that asks clients for nothing.
fn tls(identity: &Identity) -> ServerTls {
    ServerTls::new(identity, None).unwrap()
}

fn untrusted(error: &TransportError) -> bool {
    matches!(error, TransportError::Untrusted(_)) && !error.is_transient()
}

/// One identity for all tests that need just any.
fn any() -> (Identity, ServerTls) {
    let identity = own(&["localhost"]);
    let tls = tls(&identity);
    (identity, tls)
}

/// A raw client's configuration that takes any server with this identity.
fn raw_config(identity: &Identity) -> Arc<rustls::ClientConfig> {
    let trust = Trust::Pinned(identity.fingerprint());
    Arc::new(ClientTls::new(trust).config().unwrap())
}
