//! The suite that every transport passes, over HTTP.

use std::sync::Arc;

use super::{Limits, fake::Fake};
use crate::transport::{
    Handler, InProcess,
    conformance::carries_everything,
    http::{
        ClientConfig, ClientTls, HttpTransport, Identity, ServerTls, Trust, listen, router_of,
        serve,
    },
};

#[tokio::test]
async fn http_carries_everything() {
    carries_everything(async |handler: Arc<dyn Handler>| {
        let limits = Limits::default();
        let listener = listen("127.0.0.1:0".parse().unwrap(), true).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = router_of(handler, Arc::new(Fake::open()), limits.router);
        tokio::spawn(serve(
            listener,
            router,
            limits.server,
            std::future::pending(),
        ));
        HttpTransport::new(&url, ClientConfig::default()).unwrap()
    })
    .await;
}

#[tokio::test]
async fn https_carries_everything() {
    let pem = Identity::self_signed_pem(&[]).unwrap();
    let identity = Identity::from_pem(pem.as_bytes(), pem.as_bytes()).unwrap();
    carries_everything(async |handler: Arc<dyn Handler>| {
        let mut limits = Limits::default();
        limits.server.tls = Some(ServerTls::new(&identity, None).unwrap());
        let listener = listen("127.0.0.1:0".parse().unwrap(), true).await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let router = router_of(handler, Arc::new(Fake::open()), limits.router);
        tokio::spawn(serve(
            listener,
            router,
            limits.server,
            std::future::pending(),
        ));
        let config = ClientConfig {
            tls: ClientTls::new(Trust::Pinned(identity.fingerprint())),
            ..ClientConfig::default()
        };
        HttpTransport::new(&url, config).unwrap()
    })
    .await;
}

#[tokio::test]
async fn one_process_carries_everything() {
    carries_everything(async |handler| InProcess::new(handler)).await;
}
