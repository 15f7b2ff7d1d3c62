//! What is noted of an upload beside its `.part`, so that it can go on after a break, in this process or the next one.
//!
//! The file is `client-C-UPLOAD.resume`: a line of JSON that says whose upload it is, the body's header as it came, and then
//! notes: how many bytes of the body had been written at some moment, and their digest. It is never brought to the disk by
//! itself. After a crash, any of its notes may be missing or wrong: only those count whose digest the stored bytes have.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{place::Place, rounds::Rounds};
use crate::{
    disk::Site,
    parameters::Digest,
    report::{PartialKey, SpoolKey},
    store::folder::private,
};

/// A note is written each time that this many bytes of the body have come, or as many as are brought to the disk at once.
const EVERY: u64 = 1 << 20;

/// Bytes of a note: the offset (little endian), and the CRC-32 of the bytes before it.
const NOTE: usize = 8 + 4;

/// Bytes of a body that are in the `.part`: all from its first one on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Note {
    /// How many.
    pub offset: u64,
    /// Of all of them.
    pub digest: Digest,
}

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    partial: PartialKey,
    /// Bytes of the body's header, which follow the line.
    header: usize,
}

/// The notes of an upload under way.
pub(super) struct Notes {
    partial: PartialKey,
    path: PathBuf,
    /// None before the body's header has come: there is nothing to go on with.
    file: Option<File>,
    /// Where the next note goes.
    end: u64,
    /// The offset of the last note.
    last: u64,
    /// After how many bytes of the body the next one is due.
    every: u64,
}

/// Notes as they were read.
pub(super) struct ReadNotes {
    pub partial: PartialKey,
    pub header: Vec<u8>,
    pub notes: Vec<Note>,
    /// Where in the file they begin.
    start: usize,
}

impl Notes {
    /// Of an upload of which nothing has come.
    pub fn new(place: &Place, key: SpoolKey, partial: PartialKey) -> Self {
        Self {
            partial,
            path: place.rounds.notes(key),
            file: None,
            end: 0,
            last: 0,
            every: every(place),
        }
    }

    /// Goes on with notes that were read. Those after `last` are removed.
    pub fn reopen(place: &Place, path: PathBuf, read: &ReadNotes, last: Note) -> io::Result<Self> {
        let file = File::options().write(true).open(&path)?;
        let before = read.notes.iter().take_while(|note| **note != last).count();
        let end = (read.start + (before + 1) * NOTE) as u64;
        file.set_len(end)?;
        Ok(Self {
            partial: read.partial,
            path,
            file: Some(file),
            end,
            last: last.offset,
            every: every(place),
        })
    }

    /// Where they are.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is something to go on with.
    pub fn has_begun(&self) -> bool {
        self.file.is_some()
    }

    /// Makes the file, with the body's header.
    pub fn begin(&mut self, rounds: &Rounds, header: &[u8]) -> io::Result<()> {
        let head = head(self.partial, header)?;
        let file = create(&self.path)?;
        let place = (&file, &*self.path);
        rounds
            .folder()
            .write_at(Site::NotesHeadWrite, place, &head, 0)?;
        self.end = head.len() as u64;
        self.file = Some(file);
        Ok(())
    }

    /// Whether so many bytes have come since the last note that the next one is due.
    pub fn is_due(&self, taken: u64) -> bool {
        self.has_begun() && taken - self.last >= self.every
    }

    /// Writes a note, unless it is the last one once more. The bytes that it speaks of have been written.
    pub fn add(&mut self, rounds: &Rounds, note: Note) -> io::Result<()> {
        let Some(file) = self.file.as_ref().filter(|_| note.offset > self.last) else {
            return Ok(());
        };
        let mut bytes = note.offset.to_le_bytes().to_vec();
        bytes.extend_from_slice(&note.digest.crc32().to_le_bytes());
        let place = (file, &*self.path);
        rounds
            .folder()
            .write_at(Site::NotesWrite, place, &bytes, self.end)?;
        self.end += NOTE as u64;
        self.last = note.offset;
        Ok(())
    }
}

fn every(place: &Place) -> u64 {
    match place.config.sync_every {
        0 => EVERY,
        bytes => bytes.min(EVERY),
    }
}

/// A new file; in the place of what an earlier process may have left under this name.
fn create(path: &Path) -> io::Result<File> {
    private().create(true).truncate(true).open(path)
}

/// The bytes before the notes.
fn head(partial: PartialKey, header: &[u8]) -> io::Result<Vec<u8>> {
    let line = Head {
        partial,
        header: header.len(),
    };
    let mut head = serde_json::to_vec(&line)?;
    head.push(b'\n');
    head.extend_from_slice(header);
    Ok(head)
}

/// Reads notes; none if they are damaged.
pub(super) fn read_notes(path: &Path) -> io::Result<Option<ReadNotes>> {
    Ok(parse(&fs::read(path)?))
}

pub(super) fn parse(bytes: &[u8]) -> Option<ReadNotes> {
    let line = bytes.iter().position(|byte| *byte == b'\n')?;
    let head: Head = serde_json::from_slice(&bytes[..line]).ok()?;
    let (header, rest) = bytes[line + 1..].split_at_checked(head.header)?;
    let mut notes = Vec::new();
    // A note that was cut off by a crash is passed over.
    for note in rest.as_chunks::<NOTE>().0 {
        let (offset, crc) = note.split_first_chunk()?;
        let crc = u32::from_le_bytes(*crc.first_chunk()?);
        notes.push(Note {
            offset: u64::from_le_bytes(*offset),
            digest: Digest::of_crc32(crc),
        });
    }
    Some(ReadNotes {
        partial: head.partial,
        header: header.to_vec(),
        notes,
        start: line + 1 + head.header,
    })
}
