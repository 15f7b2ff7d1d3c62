//! The journals against the suite, and against other processes and newer versions.

use tempfile::TempDir;

use crate::store::{
    MemoryJournal,
    journal::{Journal, conformance},
};

#[tokio::test]
async fn a_journal_in_memory_keeps_the_contract() {
    conformance::check(Box::<MemoryJournal>::default, |journal| journal).await;
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use std::{ops::Deref, os::unix::fs::PermissionsExt};

    use rusqlite::Connection;

    use super::*;
    use crate::{
        ids::{JobId, Timestamp},
        store::{
            DataFolder, SqliteJournal,
            journal::{Batch, JournalError, Position, Stream},
        },
    };

    /// A journal with the folder that it is in, which goes with it.
    struct Placed(Option<SqliteJournal>, TempDir);

    fn open(root: &TempDir) -> SqliteJournal {
        SqliteJournal::open(DataFolder::open(root.path()).unwrap()).unwrap()
    }

    impl Placed {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            Self(Some(open(&root)), root)
        }

        fn again(mut self) -> Self {
            // Closed before it is opened: the folder is one process's at a time.
            self.0 = None;
            self.0 = Some(open(&self.1));
            self
        }
    }

    impl Deref for Placed {
        type Target = SqliteJournal;

        fn deref(&self) -> &SqliteJournal {
            self.0.as_ref().unwrap()
        }
    }

    #[tokio::test]
    async fn a_journal_in_sqlite_keeps_the_contract() {
        conformance::check(Placed::new, Placed::again).await;
    }

    #[test]
    fn a_journal_of_a_newer_version_is_refused_and_left_as_it_is() {
        let placed = Placed::new();
        placed.note_time(Timestamp(77));
        let Placed(journal, root) = placed;
        drop(journal);
        let path = root.path().join("journal.db");
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        drop(connection);
        let refused = SqliteJournal::open(DataFolder::open(root.path()).unwrap());
        assert!(matches!(
            refused,
            Err(JournalError::Newer {
                found: 99,
                known: 1,
                ..
            })
        ));
        std::fs::write(&path, b"no database at all, but a text of some length").unwrap();
        let refused = SqliteJournal::open(DataFolder::open(root.path()).unwrap());
        assert!(matches!(refused, Err(JournalError::Damaged { .. })));
    }

    #[tokio::test]
    async fn nobody_else_may_read_it() {
        let placed = Placed::new();
        let job = Stream::Job(JobId(1));
        let batch = Batch::default().fact("a", b"1".to_vec());
        placed.append(job, Position(0), batch).wait().await.unwrap();
        for file in ["journal.db", "journal.db-wal", "journal.db-shm"] {
            let found = std::fs::metadata(placed.1.path().join(file)).unwrap();
            assert_eq!(found.permissions().mode() & 0o777, 0o600, "{file}");
        }
    }

    #[test]
    fn the_time_is_there_after_the_process() {
        let placed = Placed::new();
        assert_eq!(placed.noted_time(), None);
        placed.note_time(Timestamp(1_700_000_000_123));
        assert_eq!(
            placed.again().noted_time(),
            Some(Timestamp(1_700_000_000_123))
        );
    }

    #[tokio::test]
    async fn a_process_that_lost_its_database_to_another_one_stops() {
        let placed = Placed::new();
        let path = placed.1.path().join("journal.db");
        let other = Connection::open(&path).unwrap();
        other
            .execute("UPDATE writer SET token = 'another'", [])
            .unwrap();
        let batch = || Batch::default().fact("a", b"1".to_vec());
        let job = Stream::Job(JobId(1));
        let lost = placed.append(job, Position(0), batch());
        assert_eq!(lost.wait().await, Err(JournalError::Conflict));
        assert!(placed.facts(job, "").unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_write_that_the_database_refuses_is_tried_again_until_it_goes_well() {
        let placed = Placed::new();
        let path = placed.1.path().join("journal.db");
        let other = Connection::open(&path).unwrap();
        other
            .execute_batch(
                "CREATE TRIGGER full BEFORE INSERT ON facts BEGIN SELECT RAISE(ABORT, 'no space'); END",
            )
            .unwrap();
        let job = Stream::Job(JobId(1));
        let first = placed.append(job, Position(0), Batch::default().fact("a", b"1".to_vec()));
        let waited = tokio::time::timeout(std::time::Duration::from_millis(300), first.wait());
        assert!(waited.await.is_err() && !first.is_done());
        let second = placed.append(job, Position(1), Batch::default().fact("a", b"2".to_vec()));
        other.execute_batch("DROP TRIGGER full").unwrap();
        second.wait().await.unwrap();
        assert!(first.is_done());
        assert_eq!(
            placed.facts(job, "").unwrap(),
            [("a".to_string(), b"2".to_vec())]
        );
    }
}
