//! The suite that every transport passes, over HTTP.

use std::sync::Arc;

use super::{Limits, fake::Fake};
use crate::transport::{
    Handler, InProcess,
    conformance::carries_everything,
    http::{ClientConfig, HttpTransport, listen, router_of, serve},
};

#[tokio::test]
async fn http_carries_everything() {
    carries_everything(async |handler: Arc<dyn Handler>| {
        let limits = Limits::default();
        let listener = listen("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
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
async fn one_process_carries_everything() {
    carries_everything(async |handler| InProcess::new(handler)).await;
}
