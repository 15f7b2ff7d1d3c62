//! The file of a log: JSON lines, written at the end and read from any place. It knows neither numbers nor windows.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::Arc,
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    disk::{self, Site},
    store::folder::DataFolder,
};

/// Bytes that are read at once.
const READ: usize = 64 << 10;

/// A file that is removed when the last reader lets it go.
#[derive(Debug)]
pub(super) struct SpillFile {
    file: File,
    /// Where it is; none if it has no name.
    place: Option<(PathBuf, Arc<DataFolder>)>,
}

impl SpillFile {
    pub(super) fn unnamed(file: File) -> Self {
        Self { file, place: None }
    }

    pub(super) fn named(file: File, path: PathBuf, folder: Arc<DataFolder>) -> Self {
        let place = Some((path, folder));
        Self { file, place }
    }

    /// Writes these bytes at a place. After an error, nothing beyond that place counts.
    pub(super) fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match &self.place {
            Some((path, folder)) => {
                folder.write_at(Site::LogWrite, (&self.file, path), bytes, offset)
            }
            None => self.file.write_all_at(bytes, offset),
        }
    }

    /// The lines from `start` to `end`, one by one.
    pub(super) fn lines(&self, start: u64, end: u64) -> Lines<'_> {
        let part = Part {
            file: &self.file,
            offset: start,
            end,
        };
        Lines {
            reader: BufReader::with_capacity(READ, part),
            line: Vec::new(),
        }
    }
}

impl Drop for SpillFile {
    fn drop(&mut self) {
        if let Some((path, _)) = &self.place {
            // What can't be removed now is removed when a coordinator next opens the folder.
            let _ = disk::remove_file(Site::LogRemove, path);
            if let Some(parent) = path.parent() {
                // Refused as long as the job's other log is in it.
                let _ = disk::remove_folder(Site::LogFolderRemove, parent);
            }
        }
    }
}

/// One entry as a line of the file, added to `lines`.
pub(super) fn add_line<T: Serialize>(entry: &T, lines: &mut Vec<u8>) -> io::Result<()> {
    serde_json::to_writer(&mut *lines, entry)?;
    lines.push(b'\n');
    Ok(())
}

/// Reads the lines of a part of a file.
pub(super) struct Lines<'a> {
    reader: BufReader<Part<'a>>,
    line: Vec<u8>,
}

impl Lines<'_> {
    /// The next entry with its length in bytes; none at the end of the part.
    pub(super) fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, usize)>> {
        self.line.clear();
        let length = self.reader.read_until(b'\n', &mut self.line)?;
        if length == 0 {
            return Ok(None);
        }
        let entry = serde_json::from_slice(&self.line)?;
        Ok(Some((entry, length)))
    }
}

/// A part of a file as a reader that leaves the file's own position alone: several readers share the file.
struct Part<'a> {
    file: &'a File,
    offset: u64,
    end: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.end.saturating_sub(self.offset);
        let most = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        // `read_at` has no position that readers share, and the writer of the same file goes on meanwhile.
        let count = self.file.read_at(&mut buffer[..most], self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}
