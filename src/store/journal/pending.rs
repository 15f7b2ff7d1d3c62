//! What was appended and is not on the disk yet.

use std::sync::Arc;

use tokio::sync::watch;

use super::error::JournalError;

/// How far a journal's writer is.
#[derive(Debug, Clone, Default)]
pub(super) struct Written {
    /// The last ticket whose batch is on the disk.
    pub ticket: u64,
    /// Why nothing more will be.
    pub end: Option<JournalError>,
}

/// Lets a writer know that somebody waits.
pub(super) trait Hurry: Send + Sync {
    /// Somebody waits for this ticket.
    fn hurry(&self, ticket: u64);
}

/// A batch on its way to the disk. Clones are the same batch.
#[derive(Clone)]
pub struct Pending(State);

#[derive(Clone)]
enum State {
    Done,
    Failed(JournalError),
    Waiting(Ticket),
}

#[derive(Clone)]
struct Ticket {
    number: u64,
    written: watch::Receiver<Written>,
    writer: Arc<dyn Hurry>,
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = match &self.0 {
            State::Done => "done",
            State::Failed(_) => "failed",
            State::Waiting(_) => "waiting",
        };
        write!(formatter, "Pending({text})")
    }
}

impl Pending {
    /// A batch that is durable already.
    pub fn done() -> Self {
        Self(State::Done)
    }

    /// A batch that never will be durable.
    pub fn failed(error: JournalError) -> Self {
        Self(State::Failed(error))
    }

    pub(super) fn new(
        number: u64,
        written: watch::Receiver<Written>,
        writer: Arc<dyn Hurry>,
    ) -> Self {
        Self(State::Waiting(Ticket {
            number,
            written,
            writer,
        }))
    }

    /// Whether it is durable.
    pub fn is_done(&self) -> bool {
        match &self.0 {
            State::Done => true,
            State::Failed(_) => false,
            State::Waiting(ticket) => ticket.written.borrow().ticket >= ticket.number,
        }
    }

    /// Waits until it is durable, and has the journal write at once.
    ///
    /// # Errors
    ///
    /// [`JournalError::Conflict`] or [`JournalError::Closed`]: it never will be.
    pub async fn wait(&self) -> Result<(), JournalError> {
        if let State::Waiting(ticket) = &self.0
            && !self.is_done()
        {
            ticket.writer.hurry(ticket.number);
        }
        self.wait_idly().await
    }

    /// Waits until it is durable, and lets the journal gather more before it writes: some milliseconds.
    ///
    /// # Errors
    ///
    /// As [`Pending::wait`].
    pub async fn wait_idly(&self) -> Result<(), JournalError> {
        let ticket = match &self.0 {
            State::Done => return Ok(()),
            State::Failed(error) => return Err(error.clone()),
            State::Waiting(ticket) => ticket,
        };
        let mut written = ticket.written.clone();
        let reached = written
            .wait_for(|written| written.ticket >= ticket.number || written.end.is_some())
            .await;
        match reached {
            // What was written before the end is durable.
            Ok(written) if written.ticket >= ticket.number => Ok(()),
            Ok(written) => Err(written.end.clone().unwrap_or(JournalError::Closed)),
            Err(_) => Err(JournalError::Closed),
        }
    }
}
