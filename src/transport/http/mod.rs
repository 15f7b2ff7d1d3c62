//! The transport over HTTP: REST with JSON for control, safetensors for parameters. `docs/protocol.md` tells it all.
//!
//! [`router`] is in front of a [`Handler`](super::Handler) and [`Operator`](super::Operator), and [`serve`] has the limits
//! that live on connections. [`HttpTransport`] is a worker's end and [`OperatorClient`] an operator's. Both sides see the values
//! that they would see in one process.
//!
//! ```no_run
//! # async fn example(coordinator: fedavg::coordinator::Coordinator) -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//!
//! use fedavg::transport::http::{RouterConfig, ServerConfig, listen, router, serve};
//!
//! let listener = listen("127.0.0.1:8000".parse()?, true).await?;
//! let router = router(Arc::new(coordinator), RouterConfig::default());
//! serve(listener, router, ServerConfig::default(), std::future::pending()).await;
//! # Ok(())
//! # }
//! ```
//!
//! Nothing here decides anything: whether a request is granted is the coordinator's business. But what comes from
//! outside is checked here for its form and held to limits, so that no peer makes this side panic, grow or wait for
//! ever.

mod api;
mod app;
mod browsers;
mod callers;
mod client;
mod content;
mod credentials;
mod etag;
mod guard;
mod inbound;
mod initial_model;
mod json;
mod link;
mod openapi;
mod outbound;
mod problem;
mod range;
mod router;
mod routes;
mod server;
#[cfg(test)]
mod tests;
mod tls;

pub use app::{JsonLimits, RouterConfig};
pub use axum;
pub use callers::{AddressLimits, CallerLimits, Network, NetworkError};
pub use client::{Address, AddressError, ClientConfig, HttpTransport, OperatorClient};
pub use problem::Problem;
pub use router::{router, router_of};
pub use routes::no_such_path;
pub use server::{BindError, ServerConfig, check_bind, listen, serve};
pub use tls::{
    Authorities, ClientTls, Fingerprint, FingerprintError, Identity, IdentityFiles, ServerTls,
    TlsError, Trust, WrongFingerprint,
};

/// The OpenAPI document of every route, as the coordinator serves it.
pub fn openapi() -> utoipa::openapi::OpenApi {
    router::openapi_document()
}

/// The port that a coordinator listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 8000;
