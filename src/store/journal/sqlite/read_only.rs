//! A journal that is only read: one that no coordinator has open, or one moment of one that a coordinator writes.

use std::{
    fmt::Write,
    fs::{self, File},
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, backup::Backup};
use tempfile::TempDir;

use super::{
    connection::{connect, storage},
    database::{FORM, SqliteJournal, is_lost},
    log_file,
};
use crate::{
    Cause, disk,
    store::{
        DataFolder,
        journal::{Journal, JournalError, queue::Queue},
    },
};

/// Pages of the database that are copied at once.
const PAGES: i32 = 1024;

/// The most problems of the database itself that are told.
const MOST_PROBLEMS: usize = 20;

/// A journal for reading alone. What is appended to it fails.
#[derive(Debug)]
pub(crate) struct ReadJournal {
    journal: SqliteJournal,
    /// What is read instead of the folder's own files. Removed after the connection is closed.
    _copy: Option<TempDir>,
}

impl ReadJournal {
    /// The journal of a folder that no coordinator has. None of its files is made or changed.
    ///
    /// # Errors
    ///
    /// As [`SqliteJournal::open`].
    pub fn at_rest(folder: Arc<DataFolder>) -> Result<Self, JournalError> {
        let path = folder.path().join("journal.db");
        let failed = |error| storage(&path, error);
        if is_lost(&folder) {
            let path = path.display().to_string();
            return Err(JournalError::Lost { path });
        }
        log_file::check(&path)?;
        // SQLite would merge these into the database, be it opened for reading or not.
        let mut copy = None;
        for ending in ["-wal", "-journal"] {
            let name = format!("journal.db{ending}");
            let beside = folder.path().join(&name);
            if fs::metadata(&beside).is_ok_and(|found| found.len() > 0) {
                let copied = disk::temporary_folder("fedavg-", None).and_then(|folder| {
                    fs::copy(&beside, folder.path().join(&name))?;
                    fs::copy(&path, folder.path().join("journal.db"))?;
                    Ok(folder)
                });
                copy = Some(copied.map_err(|error| JournalError::Storage {
                    path: path.display().to_string(),
                    problem: Cause::about(
                        "it can't be copied to the folder for temporary files",
                        error,
                    ),
                })?);
            }
        }
        let connection = match &copy {
            Some(copy) => connect(&copy.path().join("journal.db"))?,
            None => {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
                    | OpenFlags::SQLITE_OPEN_URI
                    | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                Connection::open_with_flags(unchanging(&path), flags).map_err(failed)?
            }
        };
        Self::over(folder, connection, copy)
    }

    /// The journal of a folder as it is at this moment, whatever a coordinator writes to it from now on.
    ///
    /// # Errors
    ///
    /// As [`SqliteJournal::open`].
    pub fn of_now(folder: Arc<DataFolder>) -> Result<Self, JournalError> {
        let path = folder.path().join("journal.db");
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags);
        let connection = connection.and_then(|connection| {
            connection.busy_timeout(Duration::from_secs(5))?;
            connection.execute_batch("BEGIN")?;
            // The moment is that of the first thing that is read.
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
            Ok(connection)
        });
        let connection = connection.map_err(|error| storage(&path, error))?;
        Self::over(folder, connection, None)
    }

    fn over(
        folder: Arc<DataFolder>,
        connection: Connection,
        copy: Option<TempDir>,
    ) -> Result<Self, JournalError> {
        let path = folder.path().join("journal.db");
        let form: i64 = connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(|error| storage(&path, error))?;
        if form > FORM {
            return Err(JournalError::Newer {
                path: path.display().to_string(),
                found: form,
                known: FORM,
            });
        }
        let alive = match File::open(folder.path().join("alive")) {
            Ok(file) => file,
            // Without it no time was noted.
            Err(_) => tempfile::tempfile().map_err(|error| storage(&path, error))?,
        };
        let queue = Queue::new();
        queue.end(JournalError::Closed);
        Ok(Self {
            journal: SqliteJournal {
                path,
                queue,
                writer: None,
                reader: Mutex::new(connection),
                alive,
                _folder: folder,
            },
            _copy: copy,
        })
    }

    /// What is in it.
    pub fn journal(&self) -> &dyn Journal {
        &self.journal
    }

    /// What is wrong with the database as such, in SQLite's words.
    ///
    /// # Errors
    ///
    /// [`JournalError::Storage`] if that can't even be found out.
    pub fn problems(&self) -> Result<Vec<String>, JournalError> {
        self.journal.read(|connection| {
            let sql = format!("PRAGMA integrity_check({MOST_PROBLEMS})");
            let mut check = connection.prepare(&sql)?;
            let rows = check.query_map([], |row| row.get::<_, String>(0))?;
            let mut problems = rows.collect::<rusqlite::Result<Vec<_>>>()?;
            problems.retain(|problem| problem != "ok");
            // Whoever writes to the database would run them. This program makes none.
            let sql = "SELECT name FROM sqlite_schema WHERE type = 'trigger'";
            let mut triggers = connection.prepare(sql)?;
            for name in triggers.query_map([], |row| row.get::<_, String>(0))? {
                problems.push(format!("it has a trigger, {:?}", name?));
            }
            Ok(problems)
        })
    }

    /// Writes the database to a new file.
    ///
    /// # Errors
    ///
    /// [`JournalError::Storage`].
    pub fn copy_to(&self, path: &Path) -> Result<(), JournalError> {
        let copied = (|| {
            let mut to = Connection::open(path)?;
            // A copy of what this connection reads, which is one moment.
            Backup::new(&self.journal.locked_reader(), &mut to)?.run_to_completion(
                PAGES,
                Duration::ZERO,
                None,
            )?;
            to.close().map_err(|(_, error)| error)
        })();
        copied.map_err(|error| storage(path, error))
    }
}

/// The name of a database that nobody changes, as SQLite takes it: no file is locked or made beside it.
fn unchanging(path: &Path) -> String {
    let mut name = "file:".to_string();
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(byte) {
            name.push(char::from(*byte));
        } else {
            let _ = write!(name, "%{byte:02x}");
        }
    }
    name + "?immutable=1"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_path_is_a_name() {
        assert_eq!(
            unchanging(Path::new("/a b/50%?#é")),
            "file:/a%20b/50%25%3f%23%c3%a9?immutable=1"
        );
    }
}
