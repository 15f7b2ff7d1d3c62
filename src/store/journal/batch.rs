//! What is appended to a journal.

use std::fmt;

use crate::ids::JobId;

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
