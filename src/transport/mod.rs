//! How workers, operators and the coordinator talk: [`Transport`] on the worker's side, [`Handler`] and [`Operator`] on the
//! coordinator's.
//!
//! [`Transport`] and [`Handler`] have the same shape, request in and response out, so that middleware is written once and every
//! transport shows both sides the same values. Bodies are streams, or values in memory if both sides share one: no layer has to
//! hold a whole model. A refusal is a response, not an error; an error means that no answer was got, and the request may be
//! sent again: requests are idempotent.

mod body;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
#[cfg(feature = "http")]
pub mod http;
mod in_process;
mod message;
mod operator;
mod page;
mod peer;
mod pieces;

use std::future::{Future, ready};

pub use body::{ModelBody, ReportBody};
use futures_util::future::BoxFuture;
pub use in_process::InProcess;
pub use message::{Credentials, Request, Requester, Response};
pub use operator::{Answer, Events, Operator, OperatorError, Records, Submission, SubmissionKey};
pub use page::Page;
pub use peer::{Caller, Peer};
pub use pieces::{BodyError, ByteStream, stored_bytes};
use thiserror::Error;

use crate::{Cause, ids::CoordinatorId, report::Refusal};

/// The worker's end: sends requests to a coordinator.
///
/// Dropping the future of `send` is safe: the request then was or was not carried out, and may be sent again.
pub trait Transport: Send + Sync + 'static {
    /// Sends one request and waits for its response.
    ///
    /// # Errors
    ///
    /// [`TransportError`] if there is no answer.
    fn send(
        &self,
        request: Request,
    ) -> impl Future<Output = Result<Response, TransportError>> + Send;

    /// Which coordinator is at the other end; asked by a worker that keeps its state on a disk, before it shows a token that it
    /// was given earlier. None if the transport can't say, as by default: its workers keep their state in memory alone.
    ///
    /// # Errors
    ///
    /// [`TransportError`] if there is no answer.
    fn coordinator(
        &self,
    ) -> impl Future<Output = Result<Option<CoordinatorId>, TransportError>> + Send {
        ready(Ok(None))
    }
}

/// The coordinator's end: answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request of this peer. What can't be granted is [`Response::Refused`].
    fn handle(&self, peer: Peer, request: Request) -> BoxFuture<'_, Response>;

    /// Checks the caller, before a transport reads the body of the request. [`Handler::handle`] has to check again: this only
    /// saves the reading. The default lets everybody pass; a handler in front of another one passes the question on.
    ///
    /// # Errors
    ///
    /// The refusal that [`Handler::handle`] would answer with.
    fn check_requester<'a>(
        &'a self,
        _peer: Peer,
        _requester: &'a Requester,
    ) -> BoxFuture<'a, Result<(), Refusal>> {
        Box::pin(ready(Ok(())))
    }
}

/// No answer was got.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The coordinator can't be reached, or the connection broke: try again.
    #[error("the coordinator can't be reached (is it running, and is the address right?): {0}")]
    Unreachable(#[source] Cause),
    /// No answer within the time limit: try again.
    #[error("no answer within {0} s")]
    TimedOut(u64),
    /// The coordinator's certificate is not one to trust, or the coordinator does not take this client's; nothing was
    /// sent. A pinned certificate's `http::WrongFingerprint` is the source of the cause.
    #[error("no trust between the coordinator and this client: {0}")]
    Untrusted(#[source] Cause),
    /// What came is not an answer of this protocol.
    #[error("not an answer of this protocol: {0}")]
    Protocol(#[source] Cause),
    /// The body of a model is not what the job's layout says.
    #[error("the body of the answer is broken: {0}")]
    Body(#[source] Cause),
}

impl TransportError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_) | Self::TimedOut(_) | Self::Body(_)
        )
    }
}
