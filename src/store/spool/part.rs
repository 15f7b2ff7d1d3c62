//! The file of an upload.

use std::{fs::File, io, path::PathBuf, sync::Arc};

use super::{
    notes::{Note, Notes},
    place::Place,
    resting::Resting,
    spooled::SpooledFile,
    trailer::Trailer,
};
use crate::{
    Cause,
    disk::{self, Site},
    ids::RequestId,
    parameters::{BlockError, BodyForm, BodySink, Digest, Digesting, EncodedReader},
    report::{ReportMetadata, SpoolError, SpoolKey},
    store::folder::{storage, unwritable},
};

/// Pieces of at least this many bytes are written as they are.
const DIRECT: usize = 64 * 1024;

/// The most bytes that are written at once.
const CHUNK: usize = 256 * 1024;

/// The file of an upload. Dropped before it is kept, it is removed.
pub(super) struct Part {
    pub place: Arc<Place>,
    pub key: SpoolKey,
    path: PathBuf,
    pub file: File,
    /// What has been taken and not written: it belongs at `start` of the payload.
    gathered: Vec<u8>,
    start: u64,
    /// Bytes written since they were last brought to the disk.
    unsynced: u64,
    /// The stretches that came in order, each with its digest; one, if the whole payload did.
    stretches: Vec<Stretch>,
    kept: bool,
    /// If the upload can be suspended.
    pub notes: Option<Notes>,
}

struct Stretch {
    start: u64,
    end: u64,
    digest: Digesting,
}

impl Part {
    pub fn create(place: Arc<Place>, key: SpoolKey) -> Result<Self, SpoolError> {
        let (path, file) = place.rounds.create(key);
        let file = file.map_err(|error| storage(&path, error))?;
        Ok(Self::new(place, key, path, file))
    }

    /// The part of an upload that rests, under the name that it has. Until [`Part::go_on`] it stays when this is dropped.
    pub fn reopen(place: Arc<Place>, upload: RequestId, resting: &Resting) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(&resting.part)?;
        let key = SpoolKey {
            upload,
            ..resting.key
        };
        let mut part = Self::new(place, key, resting.part.clone(), file);
        part.kept = true;
        Ok(part)
    }

    /// It has been read again, and is a part under way.
    pub fn go_on(&mut self) {
        self.kept = false;
    }

    fn new(place: Arc<Place>, key: SpoolKey, path: PathBuf, file: File) -> Self {
        Self {
            place,
            key,
            path,
            file,
            gathered: Vec::new(),
            start: 0,
            unsynced: 0,
            stretches: Vec::new(),
            kept: false,
            notes: None,
        }
    }

    /// Writes what has been gathered, and then the note that speaks of it.
    pub fn add_note(&mut self, note: Note) -> Result<(), BlockError> {
        self.write_gathered()?;
        let Some(notes) = &mut self.notes else {
            return Ok(());
        };
        let added = notes.add(&self.place.rounds, note);
        added.map_err(|error| unwritable(notes.path(), error))
    }

    /// Keeps what has come, for an upload that goes on.
    pub fn suspend(mut self, note: Note) -> Option<Resting> {
        if !self.notes.as_ref().is_some_and(Notes::has_begun) {
            return None;
        }
        if let Err(error) = self.add_note(note) {
            tracing::warn!(file = %self.path.display(), %error, "the part of a broken upload can't be kept");
            return None;
        }
        self.kept = true;
        Some(Resting {
            key: self.key,
            part: self.path.clone(),
            notes: self.notes.as_ref()?.path().to_path_buf(),
            good: Some(note),
        })
    }

    /// Makes it a stored report, of which every byte has been taken.
    pub fn keep(
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
            .and_then(|()| self.cut_after(form.stored_bytes() + trailer.len() as u64))
            .and_then(|()| disk::sync_data(Site::ReportSync, &self.file, &self.path))
            // After the sync: what has a report's name is whole, also after a crash.
            .and_then(|()| rounds.keep(self.key, &mut self.path))
            .map_err(|error| storage(&self.path, error))?;
        self.kept = true;
        self.remove_notes();
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

    /// Ends the file here, if it has been left by an earlier process: that one may have written its own trailer.
    fn cut_after(&self, end: u64) -> io::Result<()> {
        if self.notes.is_none() {
            return Ok(());
        }
        self.file.set_len(end)
    }

    /// After the report is durable: without its notes, a part is removed at the next start.
    fn remove_notes(&self) {
        let Some(notes) = self.notes.as_ref().filter(|notes| notes.has_begun()) else {
            return;
        };
        if let Err(error) = disk::remove_file(Site::NotesRemove, notes.path()) {
            tracing::warn!(file = %notes.path().display(), %error, "a file of the spool stays behind");
        }
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
        self.cover(offset, bytes);
        self.unsynced += bytes.len() as u64;
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

    /// Takes the digest of bytes that are in their place.
    fn cover(&mut self, offset: u64, bytes: &[u8]) {
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
    }
}

impl BodySink for Part {
    fn header(&mut self, bytes: &[u8]) -> Result<(), BlockError> {
        let Some(notes) = &mut self.notes else {
            return Ok(());
        };
        let begun = notes.begin(&self.place.rounds, bytes);
        begun.map_err(|error| unwritable(notes.path(), error))
    }

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
            if let Some(notes) = self.notes.as_ref().filter(|notes| notes.has_begun()) {
                self.place.rounds.remove(self.key, notes.path());
            }
            self.place.rounds.remove(self.key, &self.path);
        }
    }
}

/// A part whose bytes come from its own file, and are in their place.
pub(super) struct StoredPart<'a>(pub &'a mut Part);

impl BodySink for StoredPart<'_> {
    fn begin(&mut self, _form: &BodyForm) -> Result<(), BlockError> {
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), BlockError> {
        self.0.cover(offset, bytes);
        self.0.start = offset + bytes.len() as u64;
        Ok(())
    }
}
