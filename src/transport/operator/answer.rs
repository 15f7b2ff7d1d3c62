//! What an operator's questions come to: answers, streams, errors.

use std::io;

use futures_util::{future::BoxFuture, stream::BoxStream};
use thiserror::Error;

use crate::{
    ids::CoordinatorId,
    protocol::{LoggedEvent, RoundRecord},
    report::{Refusal, RefusalKind},
    transport::{BodyError, Page, TransportError},
};

/// What an operator's question comes to.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, OperatorError>>;

/// A job's events, the past ones and the coming ones. An error ends them.
pub type Events = BoxStream<'static, Result<LoggedEvent, OperatorError>>;

/// The records of a job's rounds, as they come. An error ends them.
pub type Records<'a> = BoxStream<'a, Result<RoundRecord, OperatorError>>;

/// Why an operator got no answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OperatorError {
    /// The coordinator says no, and why.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There was no answer.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The coordinator is another one than before: its jobs are others, whatever their numbers.
    #[error(
        "the coordinator is another one than before: its identity is {found}, and {expected} was expected"
    )]
    OtherCoordinator {
        /// Who answered before.
        expected: CoordinatorId,
        /// Who answers now; empty if it is of version 0.1.
        found: CoordinatorId,
    },
    /// A model did not come whole.
    #[error("the model did not come whole")]
    Body(#[from] BodyError),
    /// What was read could not be written.
    #[error("the model can't be written")]
    Write(#[source] io::Error),
}

/// The answer of an operator that knows no tokens.
pub(super) fn without_tokens<'a, T: Send + 'a>() -> Answer<'a, T> {
    let refusal = Refusal::new(RefusalKind::NotFound, "there are no tokens here");
    Box::pin(std::future::ready(Err(refusal.into())))
}

/// All entries of a list, page by page.
pub(super) async fn all<'a, T, N>(
    first: N,
    page: impl Fn(N) -> Answer<'a, Page<T, N>> + Send,
) -> Result<Vec<T>, OperatorError>
where
    T: Send,
    N: Copy + PartialOrd + Send,
{
    let mut entries = Vec::new();
    let mut after = first;
    loop {
        let page = page(after).await?;
        entries.extend(page.entries);
        match page.next {
            Some(next) if next > after => after = next,
            // A page that leads back would never end.
            _ => return Ok(entries),
        }
    }
}
