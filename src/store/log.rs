//! A log that is bounded in memory, in bytes: the newest entries are in a window, all older ones in a file. Nothing is
//! dropped, and readers see no difference.
//!
//! ```text
//!    append ──▶ [ window: the newest entries, at most `limit` bytes ]
//!                   │ over half of the limit: the oldest go, on a blocking thread
//!                   ▼
//!               file of JSON lines, with the place of one entry in each 64 KiB
//! ```
//!
//! With a journal, the entries are in it, and the window only saves reading them: those that are durable leave it.
//!
//! Appending never waits for the disk, since it is called under the coordinator's lock. An entry leaves the window after
//! it is in the file, so that a reader finds it in one of the two at every moment. If the disk fails, entries stay in
//! memory, and a warning says so.

mod place;
mod spill;

use std::{
    collections::VecDeque,
    io,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

pub use place::LogFiles;
use serde::{Serialize, de::DeserializeOwned};
use spill::{SpillFile, add_line};
use tokio::{runtime::Handle, sync::Notify, time::timeout};

use super::journal::{Journal, Stream};

/// Bytes that are written at once, and so the distance between two places that are known in the file.
const BATCH: usize = 64 << 10;

/// The most entries that are read from a journal at once: those of a job with ten thousand clients are long.
const JOURNAL_PAGE: usize = 64;

/// A page ends after this many bytes of entries.
const PAGE_BYTES: usize = 1 << 20;

/// The longest that [`WindowedLog::room`] waits.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What a log consists of.
pub(crate) trait LogEntry: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Its number, which is larger than that of the entry before it.
    fn number(&self) -> u64;

    /// Bytes of memory that it takes, at least roughly. Called under locks, so in time proportional to nothing but its own
    /// parts.
    fn bytes(&self) -> usize;
}

/// Some entries of a log, in order.
#[derive(Debug)]
pub(crate) struct LogPage<T> {
    pub entries: Vec<Arc<T>>,
    /// Whether the log had no further entry.
    pub is_last: bool,
}

/// A log of one job, or of the coordinator. Clones are the same log; its file is removed with the last of them.
///
/// # Contract
///
/// 1. Pages have all entries after the one asked for, in order and without gaps, whatever is appended or spilled meanwhile.
/// 2. `append` takes no longer for a long log than for a short one, and never waits for a disk.
/// 3. The window has at most `limit` bytes if those who cause entries wait for [`WindowedLog::room`] and the disk works.
pub(crate) struct WindowedLog<T>(Arc<Shared<T>>);

impl<T> Clone for WindowedLog<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Shared<T> {
    limit: usize,
    place: LogPlace,
    stream: Stream,
    name: &'static str,
    runtime: Handle,
    state: Mutex<State<T>>,
    /// Notified after each step of a spill.
    stepped: Notify,
}

/// Where the entries are that are not in the window.
#[derive(Clone)]
pub(crate) enum LogPlace {
    /// In files of the log's own.
    Files(LogFiles),
    /// In a journal, into which the caller puts every entry.
    Journal(Arc<dyn Journal>),
}

struct State<T> {
    /// The number of the last entry that was appended.
    last: u64,
    /// With a journal: the number of the last entry that is durable.
    durable: u64,
    window: VecDeque<Arc<T>>,
    /// Bytes of the window's entries.
    bytes: usize,
    spilled: Spilled,
    is_spilling: bool,
    /// Bytes of the window at which the next spill begins.
    due: usize,
}

/// What is in the file.
#[derive(Default)]
struct Spilled {
    file: Option<Arc<SpillFile>>,
    /// The first entry of each batch that was written, with its place.
    marks: Vec<(u64, u64)>,
    /// The length of the file as far as it counts.
    end: u64,
    /// The number of the last entry in it.
    last: Option<u64>,
}

impl<T: LogEntry> WindowedLog<T> {
    /// A log of at most `limit` bytes in memory. Its entries up to the number `last` are in the journal, if it was recovered; a
    /// new log has none. Without a journal it spills to a file of this name, on the runtime's blocking threads.
    pub fn after(
        last: u64,
        limit: usize,
        place: LogPlace,
        stream: Stream,
        name: &'static str,
        runtime: Handle,
    ) -> Self {
        Self(Arc::new(Shared {
            limit,
            place,
            stream,
            name,
            runtime,
            state: Mutex::new(State {
                last,
                durable: last,
                window: VecDeque::new(),
                bytes: 0,
                spilled: Spilled {
                    last: Some(last).filter(|last| *last > 0),
                    ..Spilled::default()
                },
                is_spilling: false,
                // Half of the limit is room for what is appended while the first half is being written.
                due: limit / 2,
            }),
            stepped: Notify::new(),
        }))
    }

    /// Adds an entry, whose number must be larger than the last one's.
    pub fn append(&self, entry: Arc<T>) {
        let mut state = self.state();
        state.last = entry.number();
        state.bytes += entry.bytes();
        state.window.push_back(entry);
        if matches!(self.0.place, LogPlace::Journal(_)) {
            return state.drop_durable(self.0.limit / 2);
        }
        // At half of the limit, so that entries can still come while the disk writes.
        if state.bytes > state.due && !state.is_spilling {
            state.is_spilling = true;
            drop(state);
            let log = self.clone();
            // Under the lock of the coordinator, so nothing here may wait for a disk.
            self.0.runtime.spawn_blocking(move || log.spill());
        }
    }

    /// The number of the last entry; 0 if there is none.
    pub fn last(&self) -> u64 {
        self.state().last
    }

    /// With a journal: the entries up to this number are durable.
    pub fn settle(&self, number: u64) {
        if !matches!(self.0.place, LogPlace::Journal(_)) {
            return;
        }
        let mut state = self.state();
        state.durable = state.durable.max(number);
        state.drop_durable(self.0.limit / 2);
    }

    /// Waits, for a few seconds at most, while the window is over its limit and is being spilled. A caller that is about to
    /// cause entries at a request of others waits here first, so that they can't be faster than the disk.
    pub async fn room(&self) {
        let waited = timeout(LONGEST_WAIT, async {
            loop {
                let mut stepped = pin!(self.0.stepped.notified());
                // Before the look at the window: a step between the look and the wait would be missed.
                stepped.as_mut().enable();
                if !self.is_over() {
                    return;
                }
                stepped.await;
            }
        });
        // A disk that hangs is treated as one that fails: the job goes on.
        let _ = waited.await;
    }

    /// At most `limit` of the entries after the one with this number, and of at most a megabyte, but at least one if there
    /// is one.
    ///
    /// # Errors
    ///
    /// What the operating system says of the file.
    pub async fn page(&self, after: u64, limit: usize) -> io::Result<LogPage<T>> {
        if let Some(page) = self.recent(after, limit) {
            return Ok(page);
        }
        let log = self.clone();
        let read = self
            .0
            .runtime
            .spawn_blocking(move || log.read(after, limit));
        read.await.map_err(io::Error::other)?
    }

    /// The page if it begins in the window.
    fn recent(&self, after: u64, limit: usize) -> Option<LogPage<T>> {
        let state = self.state();
        // The page begins in the file.
        if state.spilled.last.is_some_and(|last| after < last) {
            return None;
        }
        let start = state
            .window
            .partition_point(|entry| entry.number() <= after);
        let mut entries = Vec::new();
        let mut bytes = 0;
        for entry in state.window.range(start..) {
            if entries.len() >= limit || bytes >= PAGE_BYTES {
                break;
            }
            bytes += entry.bytes();
            entries.push(entry.clone());
        }
        let is_last = start + entries.len() == state.window.len();
        Some(LogPage { entries, is_last })
    }

    /// The page from the file. It ends at the file's end; the next one then begins in the window.
    fn read(&self, after: u64, limit: usize) -> io::Result<LogPage<T>> {
        if let LogPlace::Journal(journal) = &self.0.place {
            return self.read_journal(&**journal, after, limit);
        }
        let (file, start, end) = {
            let spilled = &self.state().spilled;
            let Some(file) = spilled.file.clone() else {
                return Err(io::Error::other("the log has no file"));
            };
            // The end as it is now: bytes behind it may be half of a batch that is being written.
            (file, spilled.place_before(after), spilled.end)
        };
        let mut lines = file.lines(start, end);
        let mut entries = Vec::new();
        let mut bytes = 0;
        while entries.len() < limit && bytes < PAGE_BYTES {
            let Some((entry, length)) = lines.next::<T>()? else {
                break;
            };
            // A mark is the first entry of a batch, so reading may begin some entries too early.
            if entry.number() > after {
                bytes += length;
                entries.push(Arc::new(entry));
            }
        }
        Ok(LogPage {
            entries,
            is_last: false,
        })
    }

    fn read_journal(
        &self,
        journal: &dyn Journal,
        after: u64,
        limit: usize,
    ) -> io::Result<LogPage<T>> {
        // An entry that the journal has and this log has not is not complete.
        let last = self.state().last;
        let limit = limit.min(JOURNAL_PAGE);
        let found = journal
            .entries(self.0.stream, self.0.name, after, limit)
            .map_err(io::Error::other)?;
        let mut entries = Vec::with_capacity(found.len());
        for (number, body) in found {
            if number <= last {
                entries.push(Arc::new(serde_json::from_slice(&body)?));
            }
        }
        Ok(LogPage {
            entries,
            is_last: false,
        })
    }

    /// Writes the oldest entries to the file until the window has a quarter of its limit. Waits for the disk.
    fn spill(&self) {
        loop {
            let batch = {
                let mut state = self.state();
                // Down to a quarter, and not to just below the half: then the disk is used in batches, and not once
                // for each entry.
                let batch = state.oldest(self.0.limit / 4);
                if batch.is_empty() {
                    state.is_spilling = false;
                    break;
                }
                batch
            };
            // Outside of the lock. The entries stay in the window until they are in the file, so that a page always
            // finds them.
            let written = self.write(&batch);
            let mut state = self.state();
            match written {
                // Only now does the file's new end count: a batch that was written in part is written over by the
                // next try.
                Ok(end) => state.spilled(&batch, end),
                Err(error) => {
                    self.failed(&mut state, &error);
                    break;
                }
            }
            if state.due != self.0.limit / 2 {
                state.due = self.0.limit / 2;
                tracing::info!(stream = ?self.0.stream, log = self.0.name, "the log is written to its file again");
            }
            drop(state);
            // After every batch, so that those who wait go on as soon as there is room, not when the spill ends.
            self.0.stepped.notify_waiters();
        }
        self.0.stepped.notify_waiters();
    }

    /// Adds entries to the end of the file, and gives the new end.
    fn write(&self, batch: &[Arc<T>]) -> io::Result<u64> {
        let mut lines = Vec::with_capacity(BATCH);
        for entry in batch {
            add_line(&**entry, &mut lines)?;
        }
        let (file, end) = {
            let spilled = &self.state().spilled;
            (spilled.file.clone(), spilled.end)
        };
        let file = match file {
            Some(file) => file,
            None => {
                let LogPlace::Files(files) = &self.0.place else {
                    return Err(io::Error::other("the log has no file"));
                };
                let file = Arc::new(files.create(self.0.stream, self.0.name)?);
                self.state().spilled.file = Some(file.clone());
                file
            }
        };
        // At the end as far as it counts: this overwrites what an attempt that failed has left there.
        file.write(&lines, end)?;
        Ok(end + lines.len() as u64)
    }

    /// Keeps the entries in memory, and tries again once there are more of them.
    fn failed(&self, state: &mut State<T>, error: &io::Error) {
        if state.due == self.0.limit / 2 {
            tracing::warn!(
                stream = ?self.0.stream,
                log = self.0.name,
                %error,
                "the log can't be written to its file, and stays in memory: is the disk full?"
            );
        }
        // Once there is half a window more, and not at the next entry: a full disk stays full for a while.
        state.due = state.bytes + (self.0.limit / 2).max(1);
        state.is_spilling = false;
    }

    fn is_over(&self) -> bool {
        let state = self.state();
        // If nothing is being written, as after a failed write, waiting would not make room.
        state.is_spilling && state.bytes > self.0.limit
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: LogEntry> State<T> {
    /// Drops the oldest entries that are in the journal, until the window has this many bytes.
    fn drop_durable(&mut self, target: usize) {
        while self.bytes > target
            && let Some(entry) = self.window.front()
            && entry.number() <= self.durable
        {
            self.bytes -= entry.bytes();
            self.spilled.last = Some(entry.number());
            self.window.pop_front();
        }
    }

    /// A batch of the oldest entries, if the window has more bytes than it is to have.
    fn oldest(&self, target: usize) -> Vec<Arc<T>> {
        let mut batch = Vec::new();
        let mut taken = 0;
        for entry in &self.window {
            // Bounded, since the batch is copied as text outside of the window.
            if taken >= BATCH || self.bytes - taken <= target {
                break;
            }
            taken += entry.bytes();
            batch.push(entry.clone());
        }
        batch
    }

    /// The batch is in the file, up to this end of it.
    fn spilled(&mut self, batch: &[Arc<T>], end: u64) {
        if let (Some(first), Some(last)) = (batch.first(), batch.last()) {
            self.spilled.marks.push((first.number(), self.spilled.end));
            self.spilled.last = Some(last.number());
        }
        self.spilled.end = end;
        for entry in self.window.drain(..batch.len()) {
            self.bytes -= entry.bytes();
        }
    }
}

impl Spilled {
    /// A place in the file at or before the first entry after the one with this number.
    fn place_before(&self, after: u64) -> u64 {
        let beyond = self.marks.partition_point(|(first, _)| *first <= after);
        let mark = self.marks.get(beyond.saturating_sub(1));
        mark.map_or(0, |(_, offset)| *offset)
    }
}

#[cfg(test)]
impl<T: LogEntry> WindowedLog<T> {
    /// Bytes of the entries in memory.
    pub fn window_bytes(&self) -> usize {
        self.state().bytes
    }

    /// Whether the window is being made smaller.
    pub fn is_spilling(&self) -> bool {
        self.state().is_spilling
    }

    /// The number of the last entry in the file.
    pub fn spilled_to(&self) -> u64 {
        self.state().spilled.last.unwrap_or(0)
    }
}
