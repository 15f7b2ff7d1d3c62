//! What a journal must do.

use super::{
    batch::{Batch, Position, Record, Stream},
    error::JournalError,
    pending::Pending,
    stall::Stall,
};
use crate::ids::Timestamp;

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

    /// How many batches are appended and not durable yet: what a disk that stalls would let grow without a limit.
    fn backlog(&self) -> u64 {
        0
    }

    /// What keeps it from writing now, for people; none if it writes, or has nothing to write.
    fn stall(&self) -> Option<Stall> {
        None
    }

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
