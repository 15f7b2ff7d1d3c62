//! Worker and coordinator in one process: a request is a function call, and parameters are shared, not copied.

use std::sync::Arc;

use super::{Handler, Peer, Request, Response, Transport, TransportError};

/// The transport to a handler in the same process.
#[derive(Debug)]
pub struct InProcess<H: ?Sized>(Arc<H>);

impl<H: ?Sized> InProcess<H> {
    /// The transport to this handler.
    pub fn new(handler: Arc<H>) -> Self {
        Self(handler)
    }
}

impl<H: ?Sized> Clone for InProcess<H> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<H: Handler + ?Sized> Transport for InProcess<H> {
    async fn send(&self, request: Request) -> Result<Response, TransportError> {
        Ok(self.0.handle(Peer::InProcess, request).await)
    }
}
