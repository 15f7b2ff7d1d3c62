//! What stands behind the payload in a report's file, so that the file alone says what it is.
//!
//! A JSON document, its CRC-32 and its length (4 bytes each, little endian), and eight bytes that name the format.

use serde::{Deserialize, Serialize};

use crate::{
    parameters::{Digest, Form},
    report::{ReportMetadata, SpoolKey},
};

const MAGIC: &[u8; 8] = b"fedavgR1";

/// All of a report but its payload.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::store) struct Trailer {
    pub job: u64,
    pub round: u64,
    pub client: u32,
    pub upload: u64,
    pub metadata: ReportMetadata,
    pub encoding: String,
    /// Values of a sparse payload.
    pub entries: usize,
    /// Bytes of the payload, which the file begins with.
    pub bytes: u64,
    /// Of the payload.
    pub digest: String,
}

impl Trailer {
    pub fn new(key: SpoolKey, metadata: &ReportMetadata, form: &Form, digest: Digest) -> Self {
        Self {
            job: key.job.0,
            round: key.round.0,
            client: key.client.0,
            upload: key.upload.0,
            metadata: metadata.clone(),
            encoding: form.encoding().to_string(),
            entries: form.entries(),
            bytes: form.bytes(),
            digest: digest.to_string(),
        }
    }

    /// The bytes behind the payload.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = serde_json::to_vec(self)?;
        let (crc, length) = (Digest::of(&bytes).crc32(), bytes.len() as u32);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(MAGIC);
        Ok(bytes)
    }

    /// The trailer of a whole file.
    #[cfg(test)]
    pub fn decode(file: &[u8]) -> Option<Self> {
        let file = file.strip_suffix(MAGIC)?;
        let (file, length) = file.split_last_chunk()?;
        let (file, crc) = file.split_last_chunk()?;
        let start = file
            .len()
            .checked_sub(u32::from_le_bytes(*length) as usize)?;
        let json = &file[start..];
        let whole = Digest::of(json).crc32() == u32::from_le_bytes(*crc);
        let trailer: Self = whole.then(|| serde_json::from_slice(json).ok())??;
        (trailer.bytes == start as u64).then_some(trailer)
    }
}
