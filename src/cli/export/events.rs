//! TensorBoard's event files: records of protocol buffers, each between two checksums.
//!
//! A record is its length (8 bytes), the masked CRC-32C of these bytes, the event, and the event's masked CRC-32C
//! (`tensorflow/core/lib/io/record_writer.h`). An event has the fields of `tensorflow/core/util/event.proto` that curves need:
//! time, step, and a summary of one tag and one value.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::Series;
use crate::{cli::whole_file::WholeFile, ids::Timestamp};

/// Types of a field in a protocol buffer.
const VARINT: u8 = 0;
const FIXED_64: u8 = 1;
const BYTES: u8 = 2;
const FIXED_32: u8 = 5;

/// An event file.
pub(super) struct EventFile(Vec<u8>);

impl EventFile {
    /// Writes the series into a file of this folder; its path.
    pub fn write(folder: &Path, at: Timestamp, series: &[Series]) -> io::Result<PathBuf> {
        let seconds = at.0 as f64 / 1000.0;
        let mut file = Self(Vec::new());
        let mut first = double(1, seconds);
        first.extend(bytes(3, b"brain.Event:2"));
        file.add(&first);
        for one in series {
            for point in &one.points {
                let mut value = bytes(1, one.name.as_bytes());
                value.extend(float(2, point.value as f32));
                let mut event = double(1, seconds);
                event.extend(varint_field(2, point.round));
                event.extend(bytes(5, &bytes(1, &value)));
                file.add(&event);
            }
        }
        fs::create_dir_all(folder)?;
        // TensorBoard reads files with this part in their names.
        let name = format!("events.out.tfevents.{}.fedavg", at.0 / 1000);
        let path = folder.join(name);
        let written = WholeFile::written(&path, |whole| io::Write::write_all(whole, &file.0));
        let placed = written.and_then(WholeFile::put_in_place);
        placed.map_err(|failure| io::Error::other(failure.to_string()))?;
        Ok(path)
    }

    fn add(&mut self, event: &[u8]) {
        let length = (event.len() as u64).to_le_bytes();
        self.0.extend(length);
        self.0.extend(masked(&length).to_le_bytes());
        self.0.extend(event);
        self.0.extend(masked(event).to_le_bytes());
    }
}

/// The CRC-32C of data that may have checksums in it.
fn masked(data: &[u8]) -> u32 {
    crc32c::crc32c(data)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn varint_field(field: u8, number: u64) -> Vec<u8> {
    let mut found = vec![field << 3 | VARINT];
    found.extend(varint(number));
    found
}

fn double(field: u8, number: f64) -> Vec<u8> {
    let mut found = vec![field << 3 | FIXED_64];
    found.extend(number.to_le_bytes());
    found
}

fn float(field: u8, number: f32) -> Vec<u8> {
    let mut found = vec![field << 3 | FIXED_32];
    found.extend(number.to_le_bytes());
    found
}

fn bytes(field: u8, content: &[u8]) -> Vec<u8> {
    let mut found = vec![field << 3 | BYTES];
    found.extend(varint(content.len() as u64));
    found.extend(content);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::export::Point;

    #[test]
    fn a_record_is_as_tensorflow_writes_it() {
        // As Python computes it (docs/testing.md): the masked CRC of the length 24.
        assert_eq!(masked(&24_u64.to_le_bytes()), 0x224b_7fa3);
        let folder = tempfile::tempdir().unwrap();
        let series = Series {
            name: "loss".to_string(),
            points: vec![Point {
                round: 300,
                value: 0.5,
            }],
        };
        let path = EventFile::write(folder.path(), Timestamp(2_000), &[series]).unwrap();
        let file = fs::read(path).unwrap();
        // The first record: time 2.0, the version of the format.
        assert_eq!(file[..8], 24_u64.to_le_bytes());
        assert_eq!(file[12..21], [9, 0, 0, 0, 0, 0, 0, 0, 64]);
        assert_eq!(file[21..23], [26, 13]);
        let second = &file[8 + 4 + 24 + 4..];
        let event = &second[12..second.len() - 4];
        // Step 300 is two bytes; the value 0.5 is the last four.
        assert_eq!(event[9..12], [16, 0xac, 2]);
        assert_eq!(event[event.len() - 4..], 0.5_f32.to_le_bytes());
        assert_eq!(second[..8], (event.len() as u64).to_le_bytes());
    }
}
