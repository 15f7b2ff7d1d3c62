//! What a coordinator knows, written down so that it survives it.
//!
//! A journal has streams: one for the coordinator, and one for each job. A stream has four parts. *Records* are what happened, in
//! order; recovery replays them. A *snapshot* is what they came to: it takes the place of all records before it. *Facts* are values
//! by name, each with its latest value. *Logs* are numbered entries for people, read by page. All that is appended in one batch is
//! there after a crash, or nothing of it.

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod memory;
mod pending;
mod queue;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::fmt;

pub use memory::MemoryJournal;
pub use pending::Pending;
#[cfg(feature = "sqlite")]
pub(crate) use sqlite::ReadJournal;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteJournal;
use thiserror::Error;

use crate::{
    Cause,
    ids::{JobId, Timestamp},
};

/// A part of a journal with an order of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// Workers, numbers, and what all jobs share.
    Coordinator,
    /// One job.
    Job(JobId),
}

/// How many batches a stream has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl Position {
    /// The position after one more batch.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// What is appended in one step.
#[derive(Debug, Default)]
pub struct Batch {
    /// What happened, in order.
    pub records: Vec<Record>,
    /// What all records so far have come to, those of this batch included: it takes their place.
    pub snapshot: Option<Body>,
    /// New values of facts.
    pub facts: Vec<Fact>,
    /// New entries of logs.
    pub entries: Vec<Entry>,
}

impl Batch {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
            && self.snapshot.is_none()
            && self.facts.is_empty()
            && self.entries.is_empty()
    }

    /// Adds a new value of a fact.
    pub fn fact(mut self, name: impl Into<String>, body: impl Into<Body>) -> Self {
        self.facts.push(Fact {
            name: name.into(),
            body: Some(body.into()),
        });
        self
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The number of the rules by which it was written: a reader with other rules does not replay it.
    pub semantics: u32,
    /// What happened.
    pub body: Vec<u8>,
}

/// A value by name.
#[derive(Debug)]
pub struct Fact {
    /// Its name, such as `worker/17`.
    pub name: String,
    /// Its value from now on; none: the fact is forgotten.
    pub body: Option<Body>,
}

/// An entry of a log.
#[derive(Debug)]
pub struct Entry {
    /// The log's name, such as `events`.
    pub log: &'static str,
    /// Its number. An entry that has it already is replaced.
    pub number: u64,
    /// JSON.
    pub body: Body,
}

/// Bytes, or how they are made: the journal makes them on a thread of its own, so that the lock under which a batch is appended
/// is not held meanwhile.
pub enum Body {
    /// As they are.
    Bytes(Vec<u8>),
    /// Made when they are written.
    Later(Box<dyn FnOnce() -> Vec<u8> + Send>),
}

impl Body {
    /// The bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Later(make) => make(),
        }
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(formatter, "Bytes({})", bytes.len()),
            Self::Later(_) => formatter.write_str("Later(..)"),
        }
    }
}

/// Keeps what a coordinator knows.
///
/// # Contract
///
/// 1. The order of calls of [`Journal::append`] and [`Journal::remove`], over all streams, is the order on the disk: what is
///    there after a crash is all up to some call, and nothing of the later ones.
/// 2. A batch is there as a whole or not at all. Once its [`Pending`] has come to `Ok`, it survives a power failure.
/// 3. A batch whose expected position is not the stream's is a [`JournalError::Conflict`], and so is all that is appended after
///    it: somebody else writes this journal.
/// 4. A write that fails for another reason is tried again until it succeeds; meanwhile what is appended waits. It is never
///    dropped and never overtaken.
/// 5. [`Journal::append`] does not wait for a disk. The methods that read may, and see at least all that is durable.
/// 6. What was appended reads back to the byte; records in order, those before the last snapshot left out.
///
/// `store::journal::conformance` (feature `testing`) checks 1 to 3, 5 and 6.
pub trait Journal: Send + Sync {
    /// Appends a batch to a stream that is at this position.
    fn append(&self, stream: Stream, expected: Position, batch: Batch) -> Pending;

    /// Forgets a stream with all that is in it.
    fn remove(&self, stream: Stream) -> Pending;

    /// The streams, each with its position.
    ///
    /// # Errors
    ///
    /// [`JournalError`], as for the methods below.
    fn streams(&self) -> Result<Vec<(Stream, Position)>, JournalError>;

    /// The last snapshot of a stream.
    fn snapshot(&self, stream: Stream) -> Result<Option<Vec<u8>>, JournalError>;

    /// The records of a stream since its last snapshot.
    fn records(&self, stream: Stream) -> Result<Vec<Record>, JournalError>;

    /// The facts of a stream whose names begin with `prefix`, in order of names.
    fn facts(&self, stream: Stream, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, JournalError>;

    /// At most `limit` entries of a log after this number.
    fn entries(
        &self,
        stream: Stream,
        log: &str,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Vec<u8>)>, JournalError>;

    /// The number of the last entry of a log; 0 if there is none.
    fn last_entry(&self, stream: Stream, log: &str) -> Result<u64, JournalError>;

    /// Notes that the coordinator is alive at this time. Called often: it need not survive a power failure, and must not
    /// wait for a disk.
    fn note_time(&self, now: Timestamp);

    /// The last time that was noted.
    fn noted_time(&self) -> Option<Timestamp>;
}

/// A fact of a stream.
///
/// # Errors
///
/// [`JournalError`].
pub(crate) fn fact(
    journal: &dyn Journal,
    stream: Stream,
    name: &str,
) -> Result<Option<Vec<u8>>, JournalError> {
    let facts = journal.facts(stream, name)?;
    let found = facts.into_iter().find(|(found, _)| found == name);
    Ok(found.map(|(_, body)| body))
}

/// Why the journal can't be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The storage refuses.
    #[error("the journal {path}: {problem}")]
    Storage {
        /// Where it is.
        path: String,
        /// What went wrong.
        #[source]
        problem: Cause,
    },
    /// It was written by a newer version of this program.
    #[error(
        "the journal {path} was written by a newer version: its form is {found}, and this program knows {known}; use that version"
    )]
    Newer {
        /// Where it is.
        path: String,
        /// The form that it has.
        found: i64,
        /// The newest form that this program knows.
        known: i64,
    },
    /// Another process has written to it.
    #[error(
        "another process has written to the journal: this coordinator stops, so that no two act for one state"
    )]
    Conflict,
    /// It is closed.
    #[error("the journal is closed")]
    Closed,
}
