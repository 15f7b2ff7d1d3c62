//! Reads the header of a body that comes in pieces.

use ::safetensors::tensor::Metadata;

use super::SafetensorsError;
use crate::parameters::{HeaderLimits, Layout};

/// The bytes of the header's length, which a body begins with.
pub(in crate::parameters) const LENGTH_BYTES: usize = 8;

/// Takes the bytes of a body until its header is whole.
#[derive(Debug)]
pub(in crate::parameters) struct HeaderReader {
    bytes: Vec<u8>,
    limits: HeaderLimits,
}

impl HeaderReader {
    /// Of a body with payloads of these layouts; of any model, without one.
    pub fn new<'a>(expected: impl IntoIterator<Item = &'a Layout>) -> Self {
        let mut limits = HeaderLimits::default();
        // A header is not larger than a generous multiple of what the layouts' own is.
        let own = expected.into_iter().map(Layout::header_limit);
        if let Some(bytes) = own.reduce(|sum, bytes| sum + bytes) {
            limits = HeaderLimits {
                bytes,
                // The length bounds all of these already: the expected layout decides afterwards what is right.
                tensors: bytes,
                name: bytes,
                dimensions: bytes,
            };
        }
        Self::within(limits)
    }

    /// Of a body whose header is within these limits.
    pub fn within(limits: HeaderLimits) -> Self {
        let bytes = Vec::new();
        Self { bytes, limits }
    }

    /// Takes from the front of `piece` what belongs to the header, and gives it back once it is whole.
    pub fn push(&mut self, piece: &mut &[u8]) -> Result<Option<Metadata>, SafetensorsError> {
        self.take(piece, LENGTH_BYTES);
        let Some(length) = self.bytes.first_chunk() else {
            return Ok(None);
        };
        let length = u64::from_le_bytes(*length);
        // Before any byte of it is kept: a sender could otherwise announce, and then send, any number of them.
        self.limits.check_length(length)?;
        let end = LENGTH_BYTES + length as usize;
        self.take(piece, end);
        if self.bytes.len() < end {
            return Ok(None);
        }
        let json = &self.bytes[LENGTH_BYTES..];
        self.limits.check(json)?;
        // This also checks that the tensors follow each other without gaps or overlaps, which `Segments` relies on.
        serde_json::from_slice(json)
            .map(Some)
            .map_err(|error| SafetensorsError::Malformed(error.to_string()))
    }

    /// What has been taken: the body's first bytes, up to the end of the header.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Fills the bytes up to `end` from the front of `piece`.
    fn take(&mut self, piece: &mut &[u8], end: usize) {
        let count = end.saturating_sub(self.bytes.len()).min(piece.len());
        self.bytes.extend_from_slice(&piece[..count]);
        *piece = &piece[count..];
    }
}
