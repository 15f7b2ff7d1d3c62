//! What a coordinator knows, written down so that it survives it.
//!
//! A journal has streams: one for the coordinator, and one for each job. A stream has four parts. *Records* are what happened, in
//! order; recovery replays them. A *snapshot* is what they came to: it takes the place of all records before it. *Facts* are values
//! by name, each with its latest value. *Logs* are numbered entries for people, read by page. All that is appended in one batch is
//! there after a crash, or nothing of it.

mod batch;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod contract;
mod error;
mod memory;
mod pending;
mod queue;
#[cfg(feature = "sqlite")]
mod sqlite;
mod stall;

pub use batch::{Batch, Body, Entry, Fact, Position, Record, Stream};
pub use contract::Journal;
pub(crate) use contract::fact;
pub use error::JournalError;
pub(crate) use error::WHAT_TO_DO;
pub use memory::MemoryJournal;
pub use pending::Pending;
pub use queue::Queue;
#[cfg(feature = "sqlite")]
pub(crate) use sqlite::ReadJournal;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteJournal;
pub use stall::Stall;
