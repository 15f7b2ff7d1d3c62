//! The transport over HTTP: REST with JSON for control, safetensors for parameters. `docs/protocol.md` tells it all.
//!
//! [`Server`] stands in front of a [`Handler`](super::Handler) and [`Operator`](super::Operator). [`HttpTransport`] is a
//! worker's end and [`OperatorClient`] an operator's. Both sides see the values that they would see in one process.
//!
//! Nothing here decides anything: whether a request is granted is the coordinator's business. But what comes from
//! outside is checked here for its form and held to limits, so that no peer makes this side panic, grow or wait for
//! ever.

mod api;
mod client;
mod endpoint;
mod etag;
mod extract;
mod guard;
mod inbound;
mod openapi;
mod outbound;
mod problem;
mod range;
mod routes;
mod server;
#[cfg(test)]
mod tests;

pub use client::{
    AddressError, ClientConfig, EventStream, HttpTransport, OperatorClient, OperatorError,
};
pub use problem::Problem;
pub use server::{BindError, Server, ServerConfig, check_bind};

/// The OpenAPI document of every route, as the coordinator serves it.
pub fn openapi() -> utoipa::openapi::OpenApi {
    routes::openapi_document()
}

/// The port that a coordinator listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 8000;
