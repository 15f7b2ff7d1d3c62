//! How what happens gets into the journal, and what has to wait until it is there.
//!
//! Two rules. Every answer waits until all that was appended before it was made is durable; so nobody is told what a crash could
//! take back. And what is removed, or shown to those who follow a job, is removed or shown only once the record that it depends on
//! is durable. Without a journal, nothing waits.

use std::time::Duration;

use tokio::time::timeout;

use super::{
    facts::{JOB, json},
    handle::Coordinator,
    history::ROUNDS,
    state::State,
    step::{Step, snapshot_of},
};
use crate::{
    ids::JobId,
    report::{Refusal, RefusalKind},
    store::journal::{Batch, JournalError, Pending, Stall, Stream},
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

    /// Appends what an event led to: its record, the entries of the logs and, after a commit or an end, the machine.
    pub(super) fn write_step(&self, state: &mut State, id: JobId, step: &mut Step, is_new: bool) {
        let mut batch = std::mem::take(&mut step.batch);
        if let Some(job) = state.jobs.get_mut(&id) {
            let written = job.history.take_unwritten();
            // What a snapshot has need not be replayed. One at each commit, so that the records after it are of one round:
            // a version of this program that can't replay them abandons that round, and loses no commit.
            let is_due = is_new || written.iter().any(|entry| entry.log == ROUNDS);
            batch.entries.extend(written);
            if is_new || job.ended.is_some() {
                batch = batch.fact(JOB, json(&job.fact()));
            }
            if self.0.journal.is_some() && (is_due || job.ended.is_some()) {
                batch.snapshot = job.machine.as_ref().map(snapshot_of);
            }
        }
        self.append(state, Stream::Job(id), batch);
        if let Some(job) = state.jobs.get(&id) {
            let announce = job.announcer();
            self.once_durable(state, announce);
        }
        self.run_effects(state, step);
    }

    pub(super) fn run_effects(&self, state: &State, step: &mut Step) {
        for effect in step.effects.drain(..) {
            self.once_durable(state, effect);
        }
    }

    /// Writes a job's machine down.
    pub(super) fn append_snapshot(&self, state: &mut State, id: JobId) {
        let machine = state.jobs.get(&id).and_then(|job| job.machine.as_ref());
        let batch = Batch {
            snapshot: machine.map(snapshot_of),
            ..Batch::default()
        };
        self.append(state, Stream::Job(id), batch);
    }

    /// Appends what was added to a job's log beside its machine's events.
    pub(super) fn append_history(&self, state: &mut State, id: JobId) {
        let Some(job) = state.jobs.get_mut(&id) else {
            return;
        };
        let batch = Batch {
            entries: job.history.take_unwritten(),
            ..Batch::default()
        };
        let announce = job.announcer();
        self.append(state, Stream::Job(id), batch);
        self.once_durable(state, announce);
    }

    /// Refuses what would add to the journal while too much waits for its disk.
    pub(super) fn check_backlog(&self) -> Result<(), Refusal> {
        let most = self.0.config.journal.backlog;
        match &self.0.journal {
            Some(journal) if journal.backlog() > most => {
                let detail = format!(
                    "more than {most} changes wait for the coordinator's disk, which does not keep up: try again later"
                );
                Err(Refusal::new(RefusalKind::Busy, detail))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a change that an operator asks for if it could not be written down now: nobody knows when its answer would come.
    pub(super) fn check_stall(&self) -> Result<(), Refusal> {
        match self.stall() {
            Some(stall) if stall.lasts >= self.0.config.journal.patience => {
                let detail = format!("{}: nothing was changed", told(&stall));
                Err(Refusal::new(RefusalKind::Storage, detail))
            }
            _ => Ok(()),
        }
    }

    /// What keeps the journal from writing.
    pub(super) fn stall(&self) -> Option<Stall> {
        self.0.journal.as_ref().and_then(|journal| journal.stall())
    }

    /// Waits until what a reader is to be told is durable, but no longer than a person waits without a word.
    pub(super) async fn readable(&self, appended: Pending) -> Result<(), Refusal> {
        let lasts = self.stall().map_or(Duration::ZERO, |stall| stall.lasts);
        let patience = self.0.config.journal.patience.saturating_sub(lasts);
        // What is durable already is told at once, however long the disk has been stalling.
        if let Ok(written) = timeout(patience, durable(appended)).await {
            return written;
        }
        let stall = self.stall();
        let stall = stall.unwrap_or_else(|| Stall::new(patience, "its disk does not keep up"));
        let detail = format!(
            "{}; what there is to tell is not on the disk yet, and a crash could take it back. Ask again later",
            told(&stall)
        );
        Err(Refusal::new(RefusalKind::Storage, detail))
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

/// A stall in words.
fn told(stall: &Stall) -> String {
    format!(
        "the journal in the coordinator's state folder can't be written, for {} s by now: {}",
        stall.lasts.as_secs(),
        stall.reason
    )
}

fn not_written(error: &JournalError) -> Refusal {
    Refusal::new(RefusalKind::Storage, error.to_string())
}
