//! A whole safetensors body at rest, ready to be sent.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::{Encoded, Encoding, payloads::prefix_of};
use crate::parameters::{BlockError, Digest, Digesting};

/// A safetensors body that does not change any more: header and payload, in a file or in memory.
///
/// # Contract
///
/// 1. The body is whole and valid, and none of its bytes changes as long as this value exists: a store may delete it, but what is
///    being read is read to its end.
/// 2. `length` and `digest` are those of all bytes that `read` gives, header included.
/// 3. Calls from several threads at the same time give the same bytes. `read` may wait for a disk, so it is called on threads that
///    may block.
/// 4. `read` fills the whole buffer, or fails. A range past the end is an error, never a panic.
/// 5. `in_memory` and `in_pieces`, if they return something, have the same values and bytes as `read`. They cost no copy.
pub trait StoredBody: Send + Sync {
    /// What its values are encoded in.
    fn encoding(&self) -> Encoding;

    /// Bytes of header and payload.
    fn length(&self) -> u64;

    /// Of all of them.
    fn digest(&self) -> Digest;

    /// Fills `bytes` with those from `offset` on.
    ///
    /// # Errors
    ///
    /// [`BlockError::Unreadable`] if the storage fails or the body ends before.
    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), BlockError>;

    /// Compares the digest that all bytes had when they were just read with the one that they were written with, and notes what
    /// came of it for [`StoredBody::damage`]: bytes at rest can change.
    ///
    /// # Errors
    ///
    /// [`BlockError::Unreadable`] if they differ. It says which body it is, and what to do. The default takes all bytes as they are:
    /// then the receiver alone finds out.
    fn compare(&self, _found: Digest) -> Result<(), BlockError> {
        Ok(())
    }

    /// What the last [`StoredBody::compare`] found wrong; none if it is not known.
    fn damage(&self) -> Option<String> {
        None
    }

    /// The payload itself, if it is in memory.
    fn in_memory(&self) -> Option<&Encoded> {
        None
    }

    /// The whole body as pieces that share its memory, if it is in memory.
    fn in_pieces(&self) -> Option<[Bytes; 2]> {
        None
    }
}

/// Bytes that are read at once.
const CHUNK: usize = 256 * 1024;

/// Reads all of a body, and compares its digest.
///
/// # Errors
///
/// As [`StoredBody::read`] and [`StoredBody::compare`].
pub(crate) fn check_stored(body: &dyn StoredBody) -> Result<(), BlockError> {
    let (mut offset, length) = (0, body.length());
    let mut digest = Digesting::default();
    let mut buffer = vec![0; CHUNK];
    while offset < length {
        let count = (length - offset).min(CHUNK as u64) as usize;
        body.read(offset, &mut buffer[..count])?;
        digest.update(&buffer[..count]);
        offset += count as u64;
    }
    body.compare(digest.finish())
}

/// A body in memory: the header is made once, the digest when it is first asked for.
#[derive(Debug)]
pub struct MemoryBody {
    encoded: Encoded,
    pieces: [Bytes; 2],
    digest: OnceLock<Digest>,
}

impl MemoryBody {
    /// The body of a model.
    pub fn new(encoded: Encoded) -> Arc<Self> {
        Self::named("", encoded)
    }

    /// The body of a payload with this name.
    pub fn named(payload: &str, encoded: Encoded) -> Arc<Self> {
        let pieces = encoded.pieces(&prefix_of(payload));
        Arc::new(Self {
            encoded,
            pieces,
            digest: OnceLock::new(),
        })
    }
}

impl StoredBody for MemoryBody {
    fn encoding(&self) -> Encoding {
        self.encoded.form().encoding()
    }

    fn length(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len() as u64).sum()
    }

    fn digest(&self) -> Digest {
        *self.digest.get_or_init(|| {
            let mut digest = Digesting::default();
            self.pieces.iter().for_each(|piece| digest.update(piece));
            digest.finish()
        })
    }

    fn read(&self, offset: u64, mut bytes: &mut [u8]) -> Result<(), BlockError> {
        let mut offset = usize::try_from(offset).unwrap_or(usize::MAX);
        for piece in &self.pieces {
            let from = offset.min(piece.len());
            let count = bytes.len().min(piece.len() - from);
            let (now, later) = bytes.split_at_mut(count);
            now.copy_from_slice(&piece[from..from + count]);
            bytes = later;
            offset -= from;
        }
        if bytes.is_empty() {
            Ok(())
        } else {
            let missing = bytes.len();
            let detail =
                format!("the body ends {missing} bytes before the end of the range asked for");
            Err(BlockError::Unreadable(detail.into()))
        }
    }

    fn in_memory(&self) -> Option<&Encoded> {
        Some(&self.encoded)
    }

    fn in_pieces(&self) -> Option<[Bytes; 2]> {
        Some(self.pieces.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::{Layout, Parameters, Role, safetensors};

    #[test]
    fn any_range_of_the_body_is_the_files() {
        let layout = Layout::new([("w".to_string(), vec![5], Role::Trainable)]).unwrap();
        let parameters = Parameters::new(layout, vec![1.0, -2.0, 3.0, 0.5, 9.0]).unwrap();
        let file = safetensors::encode(&parameters);
        let body = MemoryBody::new(Encoded::plain(Arc::new(parameters)));
        assert_eq!(body.length(), file.len() as u64);
        assert_eq!(body.digest(), Digest::of(&file));
        for start in [0, 7, file.len() - 21, file.len() - 20, file.len() - 3] {
            for end in [start, start + 1, file.len()] {
                let mut bytes = vec![0; end - start];
                body.read(start as u64, &mut bytes).unwrap();
                assert_eq!(bytes, file[start..end]);
            }
        }
        let past = body.read(file.len() as u64 - 1, &mut [0; 2]);
        assert!(matches!(past, Err(BlockError::Unreadable(_))));
    }
}
