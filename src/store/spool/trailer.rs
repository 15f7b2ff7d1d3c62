//! What comes after the payload in a report's file, so that the file alone says what it is.
//!
//! A JSON document, its CRC-32 and its length (4 bytes each, little endian), and eight bytes that name the format.

use serde::{Deserialize, Serialize};

use crate::{
    parameters::{BodyForm, DType, Digest, Roles},
    report::{ReportMetadata, SpoolKey},
};

const MAGIC: &[u8; 8] = b"fedavgR2";

/// Bytes behind the JSON: its CRC-32, its length, and the name of the format.
pub(super) const FOOTER: usize = 4 + 4 + MAGIC.len();

/// All of a report but its payload.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::store) struct Trailer {
    pub job: u64,
    pub round: u64,
    pub client: u32,
    pub upload: u64,
    pub metadata: ReportMetadata,
    pub payloads: Vec<PayloadTrailer>,
    /// Bytes of all payloads with the gaps between them, which the file begins with.
    pub bytes: u64,
    /// Of the payloads, one after the other, without the gaps.
    pub digest: String,
}

/// What one payload is.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::store) struct PayloadTrailer {
    pub name: String,
    pub dtype: DType,
    pub roles: Roles,
    pub encoding: String,
    /// Values of a sparse payload.
    pub entries: usize,
    /// Its offset in the file and its length, in bytes.
    pub start: u64,
    pub bytes: u64,
}

impl Trailer {
    pub fn new(key: SpoolKey, metadata: &ReportMetadata, form: &BodyForm, digest: Digest) -> Self {
        let mut payloads = Vec::with_capacity(form.parts().len());
        for (part, start) in form.parts().iter().zip(form.bases()) {
            payloads.push(PayloadTrailer {
                name: part.name.clone(),
                dtype: part.form.dtype(),
                roles: part.form.roles(),
                encoding: part.form.encoding().to_string(),
                entries: part.form.entries(),
                start,
                bytes: part.form.bytes(),
            });
        }
        Self {
            job: key.job.0,
            round: key.round.0,
            client: key.client.0,
            upload: key.upload.0,
            metadata: metadata.clone(),
            payloads,
            bytes: form.stored_bytes(),
            digest: digest.to_string(),
        }
    }

    /// The bytes behind the payload.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = serde_json::to_vec(self)?;
        let (crc, length) = (Digest::of(&bytes).crc32(), bytes.len() as u32);
        // At the end and of fixed length, so that a reader finds the JSON from the end of the file, whose beginning is
        // the payload.
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(MAGIC);
        Ok(bytes)
    }

    /// The length of the JSON before a file's last bytes; none if they are not a trailer's.
    pub fn length(footer: &[u8; FOOTER]) -> Option<u64> {
        let footer = footer.strip_suffix(MAGIC)?;
        let (_, length) = footer.split_last_chunk()?;
        Some(u32::from_le_bytes(*length).into())
    }

    /// The trailer from its bytes, of a file in which they begin at `start`.
    pub fn decode(bytes: &[u8], start: u64) -> Option<Self> {
        let bytes = bytes.strip_suffix(MAGIC)?;
        let (bytes, length) = bytes.split_last_chunk()?;
        let (json, crc) = bytes.split_last_chunk()?;
        let is_whole = json.len() == u32::from_le_bytes(*length) as usize
            && Digest::of(json).crc32() == u32::from_le_bytes(*crc);
        if !is_whole {
            return None;
        }
        let trailer: Self = serde_json::from_slice(json).ok()?;
        (trailer.bytes == start).then_some(trailer)
    }

    /// Whether it is of this report.
    pub fn is_of(&self, key: SpoolKey) -> bool {
        let found = (self.job, self.round, self.client, self.upload);
        found == (key.job.0, key.round.0, key.client.0, key.upload.0)
    }

    /// The trailer of a whole file.
    #[cfg(test)]
    pub fn of_file(file: &[u8]) -> Option<Self> {
        let start = file.len().checked_sub(FOOTER)?;
        let length = Self::length(file[start..].try_into().ok()?)? as usize;
        let start = start.checked_sub(length)?;
        Self::decode(&file[start..], start as u64)
    }
}
