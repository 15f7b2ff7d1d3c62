//! One report on its way into its file.

use std::{fs::File, path::PathBuf, sync::Arc};

use super::{
    place::Place,
    spooled::SpooledFile,
    stored::{Shared, Stored},
    trailer::Trailer,
};
use crate::{
    Cause,
    disk::{self, Site},
    parameters::{BlockError, BodyDecoder, BodyForm, BodySink, Digest, Digesting, EncodedReader},
    report::{ReportMetadata, SpoolError, SpoolKey, SpoolWriter},
    store::folder::{storage, unwritable},
};

/// Pieces of at least this many bytes are written as they are.
const DIRECT: usize = 64 * 1024;

/// The most bytes that are written at once.
const CHUNK: usize = 256 * 1024;

pub(super) struct ReportFile {
    spool: Arc<Shared>,
    decoder: BodyDecoder,
    part: Part,
}

impl ReportFile {
    pub fn begin(
        spool: Arc<Shared>,
        key: SpoolKey,
        form: &Arc<BodyForm>,
    ) -> Result<Self, SpoolError> {
        let part = Part::create(spool.place.clone(), key)?;
        Ok(Self {
            spool,
            decoder: BodyDecoder::new(form.clone()),
            part,
        })
    }
}

impl SpoolWriter for ReportFile {
    fn push(&mut self, piece: &[u8]) -> Result<(), SpoolError> {
        Ok(self.decoder.push(piece, &mut self.part)?)
    }

    fn finish(
        self: Box<Self>,
        metadata: ReportMetadata,
        digest: Option<Digest>,
    ) -> Result<(), SpoolError> {
        let Self {
            spool,
            decoder,
            part,
        } = *self;
        // Checks the digest over all bytes first: a report gets its own name only if it is the one that was sent.
        let form = decoder.finish(digest)?;
        let key = part.key;
        let payloads = part.keep(form, &metadata)?;
        // After the file is durable: an accepted report must survive a power failure.
        spool.stored().insert(key, Stored { metadata, payloads });
        Ok(())
    }
}

/// The file of an upload. Dropped before it is kept, it is removed.
struct Part {
    place: Arc<Place>,
    key: SpoolKey,
    path: PathBuf,
    file: File,
    /// What has been taken and not written: it belongs at `start` of the payload.
    gathered: Vec<u8>,
    start: u64,
    /// Bytes written since they were last brought to the disk.
    unsynced: u64,
    /// The stretches that came in order, each with its digest; one, if the whole payload did.
    stretches: Vec<Stretch>,
    kept: bool,
}

struct Stretch {
    start: u64,
    end: u64,
    digest: Digesting,
}

impl Part {
    fn create(place: Arc<Place>, key: SpoolKey) -> Result<Self, SpoolError> {
        let (path, file) = place.rounds.create(key);
        let file = file.map_err(|error| storage(&path, error))?;
        Ok(Self {
            place,
            key,
            path,
            file,
            gathered: Vec::new(),
            start: 0,
            unsynced: 0,
            stretches: Vec::new(),
            kept: false,
        })
    }

    /// Makes it a stored report, of which every byte has been taken.
    fn keep(
        mut self,
        form: BodyForm,
        metadata: &ReportMetadata,
    ) -> Result<Vec<(String, EncodedReader<SpooledFile>)>, SpoolError> {
        self.write_gathered()
            .map_err(|error| SpoolError::Storage(Cause::of(error)))?;
        let trailer = Trailer::new(self.key, metadata, &form, self.digest());
        let trailer = trailer
            .encode()
            .map_err(|error| SpoolError::Storage(Cause::of(error)))?;
        let rounds = &self.place.rounds;
        rounds
            .folder()
            .write_at(
                Site::TrailerWrite,
                (&self.file, &self.path),
                &trailer,
                form.stored_bytes(),
            )
            .and_then(|()| disk::sync_data(Site::ReportSync, &self.file, &self.path))
            // After the sync: what has a report's name is whole, also after a crash.
            .and_then(|()| rounds.keep(self.key, &mut self.path))
            .map_err(|error| storage(&self.path, error))?;
        self.kept = true;
        let file = SpooledFile::new(self.place.clone(), self.key, self.path.clone());
        let mut payloads = Vec::with_capacity(form.parts().len());
        for (part, base) in form.parts().iter().zip(form.bases()) {
            let reader = EncodedReader::at(part.form.clone(), file.clone(), base);
            payloads.push((part.name.clone(), reader));
        }
        Ok(payloads)
    }

    fn digest(&mut self) -> Digest {
        // An encoding with scales writes to two places in turn, so that there can be many stretches. Digests are
        // joined in the order of the file.
        self.stretches.sort_unstable_by_key(|stretch| stretch.start);
        let stretches = self.stretches.drain(..);
        stretches.fold(Digest::of(&[]), |before, stretch| {
            before.then(stretch.digest.finish(), stretch.end - stretch.start)
        })
    }

    fn write_gathered(&mut self) -> Result<(), BlockError> {
        // Taken out and put back, so that its space is used again.
        let mut gathered = std::mem::take(&mut self.gathered);
        self.put(self.start, &gathered)?;
        self.start += gathered.len() as u64;
        gathered.clear();
        self.gathered = gathered;
        Ok(())
    }

    /// Writes bytes that belong at `offset` of the payload, as many at once as stay in the CPU's cache for their digest.
    fn put(&mut self, mut offset: u64, bytes: &[u8]) -> Result<(), BlockError> {
        for chunk in bytes.chunks(CHUNK) {
            self.put_chunk(offset, chunk)?;
            offset += chunk.len() as u64;
        }
        Ok(())
    }

    fn put_chunk(&mut self, offset: u64, bytes: &[u8]) -> Result<(), BlockError> {
        let folder = self.place.rounds.folder();
        folder
            .write_at(Site::ReportWrite, (&self.file, &self.path), bytes, offset)
            .map_err(|error| unwritable(&self.path, error))?;
        let length = bytes.len() as u64;
        // A body of this crate is one stretch for each payload, so that hardly any digests have to be combined at the
        // end.
        match self.stretches.last_mut() {
            // The digest is taken while the bytes are in the CPU's cache; reading the file again would take as long
            // as writing it.
            Some(last) if last.end == offset => {
                last.end += length;
                last.digest.update(bytes);
            }
            _ => {
                let mut digest = Digesting::default();
                digest.update(bytes);
                self.stretches.push(Stretch {
                    start: offset,
                    end: offset + length,
                    digest,
                });
            }
        }
        self.unsynced += length;
        let every = self.place.config.sync_every;
        // On the way, and not all at the end: the operating system would hold gigabytes, and the sender would wait
        // for them in silence.
        if every > 0 && self.unsynced >= every {
            self.unsynced = 0;
            let synced = disk::sync_data(Site::ReportPartSync, &self.file, &self.path);
            synced.map_err(|error| unwritable(&self.path, error))?;
        }
        Ok(())
    }
}

impl BodySink for Part {
    fn begin(&mut self, _form: &BodyForm) -> Result<(), BlockError> {
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), BlockError> {
        // An empty write at another place would only cut the gathered bytes.
        if bytes.is_empty() {
            return Ok(());
        }
        // Only bytes that follow each other can be written as one.
        if offset != self.start + self.gathered.len() as u64 {
            self.write_gathered()?;
            self.start = offset;
        }
        let room = self.place.config.gather.saturating_sub(self.gathered.len());
        if bytes.len() >= DIRECT || bytes.len() > room {
            self.write_gathered()?;
        }
        // Large pieces are not copied once more; small ones cost a system call each if they are not gathered.
        if bytes.len() >= DIRECT || bytes.len() > self.place.config.gather {
            self.put(offset, bytes)?;
            self.start = offset + bytes.len() as u64;
        } else {
            self.gathered.extend_from_slice(bytes);
        }
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.kept {
            // Uploads break off all the time. What they leave must not fill the disk.
            self.place.rounds.remove(self.key, &self.path);
        }
    }
}
