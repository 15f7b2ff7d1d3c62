//! The thread that writes: all that waits in one transaction, again and again until the disk takes it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::{
    connection::{connect, plain},
    rows::{Value, number, stream_number},
};
use crate::{
    Cause,
    disk::{self, Site},
    store::journal::{
        batch::{Batch, Body, Position, Stream},
        error::JournalError,
        queue::Queue,
    },
};

/// The first pause after a write that failed, and the longest.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What is to be written.
pub(super) enum Work {
    Append {
        stream: Stream,
        expected: Position,
        batch: Batch,
    },
    Remove {
        stream: Stream,
    },
}

/// The same, with all bytes made: a write that fails is tried again.
enum Made {
    Append {
        stream: Stream,
        expected: Position,
        batch: MadeBatch,
    },
    Remove {
        stream: Stream,
    },
}

#[derive(Default)]
struct MadeBatch {
    records: Vec<(u32, Vec<u8>)>,
    snapshot: Option<Vec<u8>>,
    facts: Vec<(String, Option<Value>)>,
    entries: Vec<(&'static str, u64, Value)>,
}

impl From<Batch> for MadeBatch {
    fn from(batch: Batch) -> Self {
        let mut made = Self::default();
        for record in batch.records {
            made.records.push((record.semantics, record.body));
        }
        made.snapshot = batch.snapshot.map(Body::into_bytes);
        for fact in batch.facts {
            let body = fact.body.map(|body| Value(body.into_bytes()));
            made.facts.push((fact.name, body));
        }
        for entry in batch.entries {
            let body = Value(entry.body.into_bytes());
            made.entries.push((entry.log, entry.number, body));
        }
        made
    }
}

impl From<Work> for Made {
    fn from(work: Work) -> Self {
        match work {
            Work::Append {
                stream,
                expected,
                batch,
            } => Self::Append {
                stream,
                expected,
                batch: batch.into(),
            },
            Work::Remove { stream } => Self::Remove { stream },
        }
    }
}

pub(super) struct Writer {
    pub path: PathBuf,
    pub queue: Arc<Queue<Work>>,
    pub connection: Connection,
    /// What this process is known by in the database.
    pub token: String,
}

/// Why a transaction did not come about.
enum Failure {
    /// It may go well another time.
    Disk(Cause),
    /// Somebody else writes.
    Conflict,
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Disk(plain(error))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Disk(Cause::of(error))
    }
}

impl Writer {
    pub fn run(mut self) {
        while let Some((work, ticket)) = self.queue.take() {
            let made: Vec<Made> = work.into_iter().map(Made::from).collect();
            match self.write(&made) {
                Ok(()) => self.queue.reached(ticket),
                Err(error) => {
                    tracing::error!(journal = %self.path.display(), %error, "the journal ends here");
                    return self.queue.end(error);
                }
            }
        }
        self.queue.end(JournalError::Closed);
    }

    /// Writes it, however long that takes.
    fn write(&mut self, work: &[Made]) -> Result<(), JournalError> {
        let mut pause = PAUSE;
        loop {
            let (connection, is_repeated) = (&mut self.connection, pause > PAUSE);
            let problem = match transact(connection, &self.path, &self.token, work, is_repeated) {
                Ok(()) => {
                    if pause > PAUSE {
                        tracing::info!(journal = %self.path.display(), "the journal is written again");
                    }
                    return Ok(());
                }
                Err(Failure::Conflict) => return Err(JournalError::Conflict),
                Err(Failure::Disk(problem)) => problem,
            };
            if pause == PAUSE {
                tracing::error!(
                    journal = %self.path.display(),
                    %problem,
                    "the journal can't be written: nothing is answered until it can; is the disk full?"
                );
            }
            self.queue.failed(problem.to_string());
            if self.queue.is_closed() {
                return Err(JournalError::Storage {
                    path: self.path.display().to_string(),
                    problem,
                });
            }
            self.queue.pause(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
            // After an error of the disk, nobody knows what the connection still has in memory.
            if let Ok(connection) = connect(&self.path) {
                self.connection = connection;
            }
        }
    }
}

fn transact(
    connection: &mut Connection,
    path: &Path,
    token: &str,
    work: &[Made],
    is_repeated: bool,
) -> Result<(), Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let writer: String = transaction
        .prepare_cached("SELECT token FROM writer")?
        .query_row([], |row| row.get(0))?;
    if writer != token {
        return Err(Failure::Conflict);
    }
    for piece in work {
        match piece {
            Made::Append {
                stream,
                expected,
                batch,
            } => {
                let position = position(&transaction, *stream)?;
                // An earlier try was said to have failed, and had not.
                if is_repeated && position > *expected {
                    continue;
                }
                if position != *expected {
                    return Err(Failure::Conflict);
                }
                append(&transaction, *stream, expected.next(), batch)?;
            }
            Made::Remove { stream } => {
                for table in ["streams", "records", "facts", "entries"] {
                    let sql = format!("DELETE FROM {table} WHERE stream = ?");
                    transaction
                        .prepare_cached(&sql)?
                        .execute([stream_number(*stream)])?;
                }
            }
        }
    }
    disk::commit(Site::JournalCommit, path, || Ok(transaction.commit()?))
}

fn position(transaction: &Transaction<'_>, stream: Stream) -> rusqlite::Result<Position> {
    let mut select = transaction.prepare_cached("SELECT position FROM streams WHERE stream = ?")?;
    let found: Option<i64> = select
        .query_row([stream_number(stream)], |row| row.get(0))
        .optional()?;
    Ok(Position(found.unwrap_or(0) as u64))
}

fn append(
    transaction: &Transaction<'_>,
    stream: Stream,
    position: Position,
    batch: &MadeBatch,
) -> rusqlite::Result<()> {
    let (stream, position) = (stream_number(stream), number(position.0));
    transaction
        .prepare_cached(
            "INSERT INTO streams (stream, position) VALUES (?1, ?2) ON CONFLICT (stream) DO UPDATE SET position = ?2",
        )?
        .execute(params![stream, position])?;
    for ((semantics, body), part) in batch.records.iter().zip(0_i64..) {
        transaction
            .prepare_cached("INSERT INTO records VALUES (?, ?, ?, ?, ?)")?
            .execute(params![stream, position, part, semantics, body])?;
    }
    if let Some(snapshot) = &batch.snapshot {
        transaction
            .prepare_cached("UPDATE streams SET snapshot = ? WHERE stream = ?")?
            .execute(params![snapshot, stream])?;
        transaction
            .prepare_cached("DELETE FROM records WHERE stream = ?")?
            .execute([stream])?;
    }
    for (name, body) in &batch.facts {
        match body {
            Some(body) => transaction
                .prepare_cached("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)")?
                .execute(params![stream, name, body])?,
            None => transaction
                .prepare_cached("DELETE FROM facts WHERE stream = ? AND name = ?")?
                .execute(params![stream, name])?,
        };
    }
    for (log, entry, body) in &batch.entries {
        transaction
            .prepare_cached("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)")?
            .execute(params![stream, log, number(*entry), body])?;
    }
    Ok(())
}
