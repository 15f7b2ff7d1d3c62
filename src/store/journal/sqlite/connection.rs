//! A connection to the database, and its errors.

use std::path::Path;

use rusqlite::{Connection, ErrorCode};

use crate::{Cause, store::journal::error::JournalError};

/// Opens the database, which is made if there is none.
pub(super) fn connect(path: &Path) -> Result<Connection, JournalError> {
    let connected = Connection::open(path).and_then(|connection| {
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        // For macOS, where a plain fsync leaves the bytes in the drive's cache.
        connection.pragma_update(None, "fullfsync", "ON")?;
        connection.pragma_update(None, "checkpoint_fullfsync", "ON")?;
        // A person's tool may hold the database for a moment.
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        connection.set_prepared_statement_cache_capacity(32);
        Ok(connection)
    });
    connected.map_err(|error| refused(path, error))
}

/// What the database refuses.
pub(super) fn refused(path: &Path, error: rusqlite::Error) -> JournalError {
    let is_damaged = matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    );
    if is_damaged {
        JournalError::Damaged {
            path: path.display().to_string(),
            problem: plain(error),
        }
    } else {
        JournalError::Storage {
            path: path.display().to_string(),
            problem: plain(error),
        }
    }
}

/// What SQLite says, once: the error behind its own says the same with a number.
pub(super) fn plain(error: rusqlite::Error) -> Cause {
    match error {
        rusqlite::Error::SqliteFailure(_, Some(message)) => message.into(),
        other => Cause::of(other),
    }
}

/// What the operating system refuses.
pub(super) fn storage(
    path: &Path,
    error: impl std::error::Error + Send + Sync + 'static,
) -> JournalError {
    JournalError::Storage {
        path: path.display().to_string(),
        problem: Cause::of(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_synced_on_every_system() {
        let folder = tempfile::tempdir().unwrap();
        let connection = connect(&folder.path().join("journal.db")).unwrap();
        for (name, expected) in [
            ("synchronous", 2),
            ("fullfsync", 1),
            ("checkpoint_fullfsync", 1),
        ] {
            let found: i64 = connection
                .pragma_query_value(None, name, |row| row.get(0))
                .unwrap();
            assert_eq!(found, expected, "{name}");
        }
    }
}
