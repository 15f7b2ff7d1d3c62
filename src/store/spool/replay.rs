//! Reads the part of a broken upload again, as if its sender had sent it once more.
//!
//! A decoder then knows all that it knew before the break. The stored bytes are those of the body, tensor by tensor in another
//! place perhaps: the body's header, which the notes have, says where.

use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

use super::notes::{Note, ReadNotes};
use crate::parameters::{BlockError, BodyDecoder, BodyForm, BodySink, EncodingError};

/// Bytes that are read at once.
const CHUNK: u64 = 256 * 1024;

/// Why a part can't be read again: whatever it is, the upload begins at 0.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReplayError {
    #[error("it can't be read: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Body(#[from] EncodingError),
    /// The next bytes of the body are of a tensor that is not stored.
    #[error("a part of its body is not stored")]
    NotStored,
}

/// The last note that the stored bytes agree with: up to there, they are as they came.
pub(super) fn last_good_note(file: &File, form: &Arc<BodyForm>, read: &ReadNotes) -> Option<Note> {
    let mut decoder = BodyDecoder::new(form.clone());
    decoder.push(&read.header, &mut Nowhere).ok()?;
    let mut good = None;
    for note in &read.notes {
        if replay(file, &mut decoder, &mut Nowhere, note.offset).is_err() {
            break;
        }
        let is_good = decoder.taken() == note.offset && decoder.digest_so_far() == note.digest;
        if !is_good {
            break;
        }
        good = Some(*note);
    }
    good
}

/// Gives the decoder, which has the header, the stored bytes up to this offset of the body.
pub(super) fn replay(
    file: &File,
    decoder: &mut BodyDecoder,
    sink: &mut dyn BodySink,
    end: u64,
) -> Result<(), ReplayError> {
    let mut buffer = vec![0; CHUNK as usize];
    while decoder.taken() < end {
        let stored = decoder.next_stored().ok_or(ReplayError::NotStored)?;
        let left = (end - decoder.taken()).min(stored.end - stored.start);
        let chunk = &mut buffer[..left.min(CHUNK) as usize];
        file.read_exact_at(chunk, stored.start)?;
        decoder.push(chunk, sink)?;
    }
    Ok(())
}

/// The values are in their place already.
pub(super) struct Nowhere;

impl BodySink for Nowhere {
    fn begin(&mut self, _form: &BodyForm) -> Result<(), BlockError> {
        Ok(())
    }

    fn write(&mut self, _offset: u64, _bytes: &[u8]) -> Result<(), BlockError> {
        Ok(())
    }
}
