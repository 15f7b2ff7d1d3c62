//! How what happens gets into the journal, and what has to wait until it is there.
//!
//! Two rules. Every answer waits until all that was appended before it was made is durable; so nobody is told what a crash could
//! take back. And what is removed, or shown to those who follow a job, is removed or shown only once the record that it depends on
//! is durable. Without a journal, nothing waits.

use super::{handle::Coordinator, state::State};
use crate::{
    report::{Refusal, RefusalKind},
    store::journal::{Batch, JournalError, Pending, Stream},
};

impl Coordinator {
    /// Appends a batch to a stream, if there is a journal. It does not wait.
    pub(super) fn append(&self, state: &mut State, stream: Stream, batch: Batch) {
        let Some(journal) = &self.0.journal else {
            return;
        };
        if batch.is_empty() {
            return;
        }
        let position = state.positions.entry(stream).or_default();
        let expected = *position;
        *position = expected.next();
        state.appended = journal.append(stream, expected, batch);
    }

    /// Has the journal forget a stream.
    pub(super) fn forget_stream(&self, state: &mut State, stream: Stream) {
        if let Some(journal) = &self.0.journal {
            state.positions.remove(&stream);
            state.appended = journal.remove(stream);
        }
    }

    /// Does this once all that was appended so far is durable; at once without a journal. It must not take the coordinator's
    /// lock if it is called with it.
    pub(super) fn once_durable(&self, state: &State, effect: impl FnOnce() + Send + 'static) {
        match &self.0.effects {
            // The receiver ends with the coordinator.
            Some(effects) => drop(effects.send((state.appended.clone(), Box::new(effect)))),
            None => effect(),
        }
    }

    /// Waits until all that was appended before is durable.
    pub(super) async fn settled(&self) -> Result<(), Refusal> {
        let appended = self.state().appended.clone();
        durable(appended).await
    }
}

/// Waits for a batch.
pub(super) async fn durable(appended: Pending) -> Result<(), Refusal> {
    appended.wait().await.map_err(|error| not_written(&error))
}

fn not_written(error: &JournalError) -> Refusal {
    Refusal::new(RefusalKind::Storage, error.to_string())
}
