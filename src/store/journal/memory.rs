//! A journal in memory: for tests, and for an embedder that starts a second coordinator in the same process.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    batch::{Batch, Position, Record, Stream},
    contract::Journal,
    error::JournalError,
    pending::Pending,
};
use crate::ids::Timestamp;

/// A journal in memory. What is in it survives a coordinator, and not the process.
#[derive(Default)]
pub struct MemoryJournal(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    streams: BTreeMap<Stream, KeptStream>,
    time: Option<Timestamp>,
    is_conflicting: bool,
}

#[derive(Default)]
struct KeptStream {
    position: Position,
    records: Vec<Record>,
    snapshot: Option<Vec<u8>>,
    facts: BTreeMap<String, Vec<u8>>,
    logs: BTreeMap<&'static str, BTreeMap<u64, Vec<u8>>>,
}

impl fmt::Debug for MemoryJournal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let streams = self.kept().streams.len();
        formatter
            .debug_struct("MemoryJournal")
            .field("streams", &streams)
            .finish()
    }
}

impl MemoryJournal {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a stream has, read by `read`; the default if there is no such stream.
    fn read<T: Default>(&self, stream: Stream, read: impl FnOnce(&KeptStream) -> T) -> T {
        self.kept()
            .streams
            .get(&stream)
            .map(read)
            .unwrap_or_default()
    }
}

impl Journal for MemoryJournal {
    fn append(&self, stream: Stream, expected: Position, batch: Batch) -> Pending {
        let mut kept = self.kept();
        if kept.is_conflicting {
            return Pending::failed(JournalError::Conflict);
        }
        let stream = kept.streams.entry(stream).or_default();
        if stream.position != expected {
            kept.is_conflicting = true;
            return Pending::failed(JournalError::Conflict);
        }
        stream.position = expected.next();
        stream.records.extend(batch.records);
        if let Some(snapshot) = batch.snapshot {
            stream.snapshot = Some(snapshot.into_bytes());
            stream.records.clear();
        }
        for fact in batch.facts {
            match fact.body {
                Some(body) => stream.facts.insert(fact.name, body.into_bytes()),
                None => stream.facts.remove(&fact.name),
            };
        }
        for entry in batch.entries {
            let log = stream.logs.entry(entry.log).or_default();
            log.insert(entry.number, entry.body.into_bytes());
        }
        Pending::done()
    }

    fn remove(&self, stream: Stream) -> Pending {
        self.kept().streams.remove(&stream);
        Pending::done()
    }

    fn streams(&self) -> Result<Vec<(Stream, Position)>, JournalError> {
        let kept = self.kept();
        let mut streams = Vec::new();
        for (stream, found) in &kept.streams {
            streams.push((*stream, found.position));
        }
        Ok(streams)
    }

    fn snapshot(&self, stream: Stream) -> Result<Option<Vec<u8>>, JournalError> {
        Ok(self.read(stream, |found| found.snapshot.clone()))
    }

    fn records(&self, stream: Stream) -> Result<Vec<Record>, JournalError> {
        Ok(self.read(stream, |found| found.records.clone()))
    }

    fn facts(&self, stream: Stream, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, JournalError> {
        Ok(self.read(stream, |found| {
            let from = found.facts.range(prefix.to_string()..);
            let mut facts = Vec::new();
            for (name, body) in from.take_while(|(name, _)| name.starts_with(prefix)) {
                facts.push((name.clone(), body.clone()));
            }
            facts
        }))
    }

    fn entries(
        &self,
        stream: Stream,
        log: &str,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Vec<u8>)>, JournalError> {
        Ok(self.read(stream, |found| {
            let mut entries = Vec::new();
            if let Some(log) = found.logs.get(log) {
                for (number, body) in log.range(after.saturating_add(1)..).take(limit) {
                    entries.push((*number, body.clone()));
                }
            }
            entries
        }))
    }

    fn last_entry(&self, stream: Stream, log: &str) -> Result<u64, JournalError> {
        Ok(self.read(stream, |found| {
            let last = found.logs.get(log).and_then(|log| log.last_key_value());
            last.map_or(0, |(number, _)| *number)
        }))
    }

    fn note_time(&self, now: Timestamp) {
        self.kept().time = Some(now);
    }

    fn noted_time(&self) -> Option<Timestamp> {
        self.kept().time
    }
}
