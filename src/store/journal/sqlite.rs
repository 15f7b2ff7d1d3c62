//! The journal in a SQLite database: one file that any tool can query.

mod connection;
mod database;
mod log_file;
mod read_only;
mod rows;
mod writer;

pub use database::SqliteJournal;
pub(crate) use read_only::ReadJournal;
