//! The journal in a SQLite database: one file that any tool can query.
//!
//! A thread of its own writes all that waits in one transaction. The database is in WAL mode with `synchronous = FULL`, so a
//! transaction is one write and one fsync, and readers wait for nothing.

use std::{
    fmt,
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    connection::{connect, refused, storage},
    log_file,
    rows::{bytes, number, stream_number, stream_of},
    writer::{Work, Writer},
};
use crate::{
    disk::{self, Site},
    ids::Timestamp,
    store::{
        DataFolder,
        folder::{ALIVE, had_journal, private},
        journal::{
            batch::{Batch, Position, Record, Stream},
            contract::Journal,
            error::JournalError,
            pending::Pending,
            queue::Queue,
            stall::Stall,
        },
    },
};

/// The number of the tables' form, in the database's `user_version`.
pub(super) const FORM: i64 = 1;

const SCHEMA: &str = include_str!("schema.sql");

/// The journal in a file of a [`DataFolder`], `journal.db`.
pub struct SqliteJournal {
    pub(super) path: PathBuf,
    pub(super) queue: Arc<Queue<Work>>,
    pub(super) writer: Option<JoinHandle<()>>,
    pub(super) reader: Mutex<Connection>,
    /// When the coordinator was alive last: eight bytes, written often and never synced.
    pub(super) alive: File,
    /// The lock goes with it.
    pub(super) _folder: Arc<DataFolder>,
}

impl fmt::Debug for SqliteJournal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SqliteJournal")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl SqliteJournal {
    /// Opens the journal of this folder, which is made if there is none.
    ///
    /// # Errors
    ///
    /// [`JournalError::Newer`] for one of a newer version, [`JournalError::Damaged`] and [`JournalError::Lost`] for one that is of no
    /// use any more, [`JournalError::Storage`] if it can't be read or written.
    pub fn open(folder: Arc<DataFolder>) -> Result<Self, JournalError> {
        let path = folder.path().join("journal.db");
        let is_new = !path.exists();
        // SQLite would make new tables, and the jobs would be gone without a word.
        if is_lost(&folder) {
            let path = path.display().to_string();
            return Err(JournalError::Lost { path });
        }
        log_file::check(&path)?;
        if is_new {
            // Seeds of jobs are in it that nobody else may know. SQLite gives its other files the mode of this one.
            private()
                .create_new(true)
                .open(&path)
                .map_err(|error| storage(&path, error))?;
        }
        let connection = connect(&path)?;
        let token = prepare(&path, &connection)?;
        if is_new {
            // SQLite syncs its own files, and the folder's entry of the database is ours to sync.
            let synced = disk::sync_folder(Site::JournalSync, folder.path());
            synced.map_err(|error| storage(&path, error))?;
        }
        let reader = connect(&path)?;
        let alive_path = folder.path().join(ALIVE);
        let alive = private()
            .create(true)
            .truncate(false)
            .open(&alive_path)
            .map_err(|error| storage(&alive_path, error))?;
        let queue = Queue::new();
        let writer = Writer {
            path: path.clone(),
            queue: queue.clone(),
            connection,
            token,
        };
        let spawned = std::thread::Builder::new()
            .name("journal".to_string())
            .spawn(move || writer.run());
        Ok(Self {
            writer: Some(spawned.map_err(|error| storage(&path, error))?),
            path,
            queue,
            reader: Mutex::new(reader),
            alive,
            _folder: folder,
        })
    }

    pub(super) fn locked_reader(&self) -> MutexGuard<'_, Connection> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn read<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, JournalError> {
        read(&self.locked_reader()).map_err(|error| refused(&self.path, error))
    }
}

impl Drop for SqliteJournal {
    fn drop(&mut self) {
        // What was appended is written, unless the disk refuses.
        self.queue.close();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Journal for SqliteJournal {
    fn backlog(&self) -> u64 {
        self.queue.backlog()
    }

    fn stall(&self) -> Option<Stall> {
        self.queue.stall()
    }

    fn append(&self, stream: Stream, expected: Position, batch: Batch) -> Pending {
        self.queue.push(Work::Append {
            stream,
            expected,
            batch,
        })
    }

    fn remove(&self, stream: Stream) -> Pending {
        self.queue.push(Work::Remove { stream })
    }

    fn streams(&self) -> Result<Vec<(Stream, Position)>, JournalError> {
        self.read(|connection| {
            let mut select = connection
                .prepare_cached("SELECT stream, position FROM streams ORDER BY stream")?;
            let rows = select.query_map([], |row| {
                let position = Position(row.get::<_, i64>(1)? as u64);
                Ok((stream_of(row.get(0)?), position))
            })?;
            rows.collect()
        })
    }

    fn snapshot(&self, stream: Stream) -> Result<Option<Vec<u8>>, JournalError> {
        self.read(|connection| {
            let sql = "SELECT snapshot FROM streams WHERE stream = ?";
            let mut select = connection.prepare_cached(sql)?;
            let found = select.query_row([stream_number(stream)], |row| row.get(0));
            Ok(found.optional()?.flatten())
        })
    }

    fn records(&self, stream: Stream) -> Result<Vec<Record>, JournalError> {
        self.read(|connection| {
            let sql =
                "SELECT semantics, body FROM records WHERE stream = ? ORDER BY position, part";
            let mut select = connection.prepare_cached(sql)?;
            let rows = select.query_map([stream_number(stream)], |row| {
                Ok(Record {
                    semantics: row.get(0)?,
                    body: row.get(1)?,
                })
            })?;
            rows.collect()
        })
    }

    fn facts(&self, stream: Stream, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, JournalError> {
        self.read(|connection| {
            // Not LIKE, for which `_` stands for any letter.
            let sql = "SELECT name, body FROM facts WHERE stream = ?1 AND substr(name, 1, length(?2)) = ?2 ORDER BY name";
            let mut select = connection.prepare_cached(sql)?;
            let rows = select.query_map(params![stream_number(stream), prefix], |row| {
                Ok((row.get(0)?, bytes(row, 1)?))
            })?;
            rows.collect()
        })
    }

    fn entries(
        &self,
        stream: Stream,
        log: &str,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Vec<u8>)>, JournalError> {
        self.read(|connection| {
            let sql = "SELECT number, body FROM entries WHERE stream = ? AND log = ? AND number > ? ORDER BY number LIMIT ?";
            let mut select = connection.prepare_cached(sql)?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let wanted = params![stream_number(stream), log, number(after), limit];
            let rows = select.query_map(wanted, |row| {
                Ok((row.get::<_, i64>(0)? as u64, bytes(row, 1)?))
            })?;
            rows.collect()
        })
    }

    fn last_entry(&self, stream: Stream, log: &str) -> Result<u64, JournalError> {
        self.read(|connection| {
            let sql = "SELECT max(number) FROM entries WHERE stream = ? AND log = ?";
            let mut select = connection.prepare_cached(sql)?;
            let last: Option<i64> =
                select.query_row(params![stream_number(stream), log], |row| row.get(0))?;
            Ok(last.unwrap_or(0) as u64)
        })
    }

    fn note_time(&self, now: Timestamp) {
        // Without it, a restart counts its downtime from the last record: not worth an error.
        let path = self._folder.path().join(ALIVE);
        let _ = disk::write_at(
            Site::AliveWrite,
            &self.alive,
            &path,
            &now.0.to_le_bytes(),
            0,
        );
    }

    fn noted_time(&self) -> Option<Timestamp> {
        let mut noted = [0; 8];
        self.alive.read_exact_at(&mut noted, 0).ok()?;
        Some(Timestamp(u64::from_le_bytes(noted)))
    }
}

/// Whether this folder had a journal, and has none or an empty one now.
pub(super) fn is_lost(folder: &DataFolder) -> bool {
    let path = folder.path().join("journal.db");
    let length = std::fs::metadata(&path).map_or(0, |found| found.len());
    length == 0 && had_journal(folder.path())
}

/// Makes the tables if there are none, and notes that this process writes from now on. Returns what it is known by.
fn prepare(path: &Path, connection: &Connection) -> Result<String, JournalError> {
    let form: i64 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|error| refused(path, error))?;
    if form > FORM {
        return Err(JournalError::Newer {
            path: path.display().to_string(),
            found: form,
            known: FORM,
        });
    }
    let mut drawn = [0; 16];
    getrandom::fill(&mut drawn).map_err(|error| storage(path, error))?;
    let token: String = drawn.iter().map(|byte| format!("{byte:02x}")).collect();
    let made = (|| {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        if form == 0 {
            connection.execute_batch(SCHEMA)?;
            connection.pragma_update(None, "user_version", FORM)?;
        }
        connection.execute("DELETE FROM writer", [])?;
        connection.execute("INSERT INTO writer VALUES (?)", [&token])?;
        connection.execute_batch("COMMIT")
    })();
    made.map_err(|error| refused(path, error))?;
    Ok(token)
}
