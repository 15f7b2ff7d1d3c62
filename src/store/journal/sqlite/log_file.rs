//! SQLite's write-ahead log: whether something in its midst is damaged.
//!
//! SQLite reads the log up to the first frame whose checksum is wrong, and passes over the rest in silence: so it drops a
//! transaction that a crash has torn, which is right, since nobody was told that it is durable. But after a flipped bit it would
//! also drop all transactions behind it. Only one transaction at a time is on its way to the disk. So if two and more are complete
//! behind the first wrong frame, that frame was durable once.
//!
//! The format: <https://www.sqlite.org/fileformat2.html#the_write_ahead_log>.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

use super::connection::storage;
use crate::store::journal::error::JournalError;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

/// The magic number of a log whose checksums are of little-endian words; the next number is for big-endian ones.
const MAGIC: u32 = 0x377f_0682;

/// Refuses the log of this database if complete transactions are behind something that is damaged.
///
/// # Errors
///
/// [`JournalError::Damaged`], and [`JournalError::Storage`] if it can't be read.
pub(super) fn check(database: &Path) -> Result<(), JournalError> {
    let mut path = database.to_path_buf().into_os_string();
    path.push("-wal");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(storage(Path::new(&path), error)),
    };
    let found = find_damage(&mut BufReader::new(file));
    match found.map_err(|error| storage(Path::new(&path), error))? {
        None => Ok(()),
        Some(problem) => Err(JournalError::Damaged {
            path: path.to_string_lossy().into_owned(),
            problem: problem.into(),
        }),
    }
}

/// What is wrong with a log that a crash alone does not explain.
fn find_damage(log: &mut impl Read) -> io::Result<Option<String>> {
    let mut header = [0; HEADER];
    // The disk has not got it, and so nothing behind it.
    if !fill(log, &mut header)? || header == [0; HEADER] {
        return Ok(None);
    }
    let (magic, page, salts) = (word(&header, 0), word(&header, 8), &header[16..24]);
    let mut sum = Checksum {
        is_big_endian: magic & 1 == 1,
        sums: [0; 2],
    };
    sum.add(&header[..24]);
    // It is a part of one sector, which is written as a whole.
    if magic & !1 != MAGIC || !(512..=65536).contains(&page) || !sum.is(&header[24..32]) {
        return Ok(Some("its header has changed".to_string()));
    }
    let mut frame = vec![0; FRAME_HEADER + page as usize];
    let mut is_whole = true;
    let mut lost = 0;
    while fill(log, &mut frame)? {
        // Frames of an earlier use of the file have other salts. What is behind them is older still.
        let is_of_this_log = &frame[8..16] == salts;
        sum.add(&frame[..8]);
        sum.add(&frame[FRAME_HEADER..]);
        is_whole &= is_of_this_log && sum.is(&frame[16..24]);
        let is_commit = word(&frame, 4) != 0;
        lost += usize::from(!is_whole && is_of_this_log && is_commit);
    }
    if lost < 2 {
        return Ok(None);
    }
    Ok(Some(format!(
        "a part of it has changed, and {lost} transactions behind it are complete"
    )))
}

/// Fills the buffer; false if the file ends before that.
fn fill(log: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match log.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// The big-endian number at a place.
fn word(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4]
        .iter()
        .fold(0, |number, byte| number << 8 | u32::from(*byte))
}

/// SQLite's checksum, which goes on from frame to frame.
struct Checksum {
    is_big_endian: bool,
    sums: [u32; 2],
}

impl Checksum {
    fn add(&mut self, bytes: &[u8]) {
        for pair in bytes.chunks_exact(8) {
            for index in 0..2 {
                let mut number = word(pair, 4 * index);
                if !self.is_big_endian {
                    number = number.swap_bytes();
                }
                let other = self.sums[1 - index];
                self.sums[index] = self.sums[index].wrapping_add(number).wrapping_add(other);
            }
        }
    }

    fn is(&self, stored: &[u8]) -> bool {
        self.sums == [word(stored, 0), word(stored, 4)]
    }
}
