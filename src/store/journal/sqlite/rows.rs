//! Values as SQLite has them.

use rusqlite::{Row, ToSql, types::ToSqlOutput};

use crate::{ids::JobId, store::journal::batch::Stream};

/// A stream's number in the tables.
pub(super) fn stream_number(stream: Stream) -> i64 {
    match stream {
        Stream::Coordinator => 0,
        Stream::Job(job) => number(job.0),
    }
}

pub(super) fn stream_of(number: i64) -> Stream {
    if number == 0 {
        Stream::Coordinator
    } else {
        Stream::Job(JobId(number as u64))
    }
}

/// SQLite has no unsigned numbers. None of ours gets that large.
pub(super) fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A value's bytes, whether it is text or not.
pub(super) fn bytes(row: &Row<'_>, index: usize) -> rusqlite::Result<Vec<u8>> {
    let value = row.get_ref(index)?;
    let bytes = value.as_bytes_or_null().map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(index, value.data_type(), Box::new(error))
    })?;
    Ok(bytes.unwrap_or_default().to_vec())
}

/// As text if it is JSON, so that SQLite's own functions can read it.
pub(super) struct Value(pub Vec<u8>);

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => Ok(ToSqlOutput::from(text)),
            Err(_) => Ok(ToSqlOutput::from(self.0.as_slice())),
        }
    }
}
