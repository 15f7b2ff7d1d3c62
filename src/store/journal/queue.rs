//! What waits for a journal's writer, which takes all of it at once (group commit).

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{
    error::JournalError,
    pending::{Hurry, Pending, Written},
    stall::Stall,
};

/// How long the writer gathers if nobody waits. One write to the disk then takes what would else be several.
const GATHER: Duration = Duration::from_millis(5);

/// A write that has taken this long is a disk that does not answer.
const SLOW: Duration = Duration::from_secs(5);

/// Batches on their way to a journal's writer, for implementors: [`Queue::push`] in `append`, and a thread that takes all that
/// waits, writes it and says so.
pub struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    written: watch::Sender<Written>,
}

struct State<T> {
    waiting: VecDeque<T>,
    /// When the first of them came.
    since: Option<Instant>,
    /// The last ticket that was given.
    last: u64,
    /// The last ticket that somebody waits for.
    wanted: u64,
    /// The last ticket that the writer has taken.
    taken: u64,
    /// Since when the writer has had what it writes now.
    writing: Option<Instant>,
    /// Why that failed, once it has. It is tried again.
    problem: Option<String>,
    is_closed: bool,
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Queue<T> {
    /// An empty one.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                since: None,
                last: 0,
                wanted: 0,
                taken: 0,
                writing: None,
                problem: None,
                is_closed: false,
            }),
            changed: Condvar::new(),
            written: watch::Sender::default(),
        })
    }

    /// Adds a batch. It does not wait.
    pub fn push(self: &Arc<Self>, item: T) -> Pending {
        let mut state = self.state();
        state.last += 1;
        let number = state.last;
        // After the end nobody takes it, and who waits for it gets the error.
        if !state.is_closed {
            state.waiting.push_back(item);
            if state.since.is_none() {
                state.since = Some(Instant::now());
                self.changed.notify_one();
            }
        }
        drop(state);
        Pending::new(number, self.written.subscribe(), self.clone())
    }

    /// How many batches are not written yet.
    pub fn backlog(&self) -> u64 {
        let last = self.state().last;
        last.saturating_sub(self.written.borrow().ticket)
    }

    /// All that waits, with the last ticket of it, once somebody wants it or it has waited for a moment; none after
    /// the end.
    pub fn take(&self) -> Option<(Vec<T>, u64)> {
        let mut state = self.state();
        loop {
            let is_wanted = state.wanted > state.taken;
            let waited = state.since.map(|since| since.elapsed());
            match waited {
                None if state.is_closed => return None,
                None => state = self.wait(state, None),
                Some(waited) if is_wanted || state.is_closed || waited >= GATHER => {
                    state.since = None;
                    state.taken = state.last;
                    state.writing = Some(Instant::now());
                    return Some((state.waiting.drain(..).collect(), state.last));
                }
                Some(waited) => state = self.wait(state, Some(GATHER - waited)),
            }
        }
    }

    /// What was taken could not be written, for this reason, and is tried again.
    pub fn failed(&self, reason: impl Into<String>) {
        self.state().problem = Some(reason.into());
    }

    /// What keeps the writer from writing what it has taken.
    pub fn stall(&self) -> Option<Stall> {
        let state = self.state();
        let lasts = state.writing?.elapsed();
        match &state.problem {
            Some(reason) => Some(Stall::new(lasts, reason)),
            None if lasts > SLOW => Some(Stall::new(lasts, "its disk does not answer")),
            None => None,
        }
    }

    /// All up to this ticket is on the disk.
    pub fn reached(&self, ticket: u64) {
        let mut state = self.state();
        (state.writing, state.problem) = (None, None);
        drop(state);
        self.written.send_modify(|written| written.ticket = ticket);
    }

    /// Nothing more will be written, for this reason.
    pub fn end(&self, error: JournalError) {
        let mut state = self.state();
        state.is_closed = true;
        state.writing = None;
        // Dropped outside of the lock.
        let dropped = std::mem::take(&mut state.waiting);
        state.since = None;
        drop(state);
        drop(dropped);
        self.written.send_modify(|written| {
            written.end.get_or_insert(error);
        });
    }

    /// Takes nothing more. What waits is still written.
    pub fn close(&self) {
        self.state().is_closed = true;
        self.changed.notify_all();
    }

    /// Whether it is closed: a writer whose disk fails then gives up.
    pub fn is_closed(&self) -> bool {
        self.state().is_closed
    }

    /// Waits for this long, unless the queue is closed meanwhile.
    pub fn pause(&self, length: Duration) {
        let state = self.state();
        if !state.is_closed {
            drop(self.wait(state, Some(length)));
        }
    }

    fn wait<'a>(
        &'a self,
        state: MutexGuard<'a, State<T>>,
        limit: Option<Duration>,
    ) -> MutexGuard<'a, State<T>> {
        match limit {
            Some(limit) => {
                let waited = self.changed.wait_timeout(state, limit);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => {
                let waited = self.changed.wait(state);
                waited.unwrap_or_else(PoisonError::into_inner)
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send + 'static> Hurry for Queue<T> {
    fn hurry(&self, ticket: u64) {
        let mut state = self.state();
        if ticket > state.wanted {
            state.wanted = ticket;
            drop(state);
            self.changed.notify_one();
        }
    }
}
