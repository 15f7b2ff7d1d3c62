//! One report on its way into its file.

use std::{io, sync::Arc};

use super::{
    notes::{Note, Notes, read_notes},
    part::{Part, StoredPart},
    replay::{ReplayError, replay},
    resting::{Resting, Suspend},
    stored::{Shared, Stored},
};
use crate::{
    Cause,
    ids::RequestId,
    parameters::{BodyDecoder, BodyForm, Digest},
    report::{PartialKey, ReportMetadata, SpoolError, SpoolKey, SpoolWriter},
};

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

    /// Begins an upload that can be suspended.
    pub fn begin_resumable(
        spool: Arc<Shared>,
        upload: RequestId,
        partial: PartialKey,
        form: &Arc<BodyForm>,
    ) -> Result<Self, SpoolError> {
        let key = partial.report(upload);
        let mut file = Self::begin(spool, key, form)?;
        file.part.notes = Some(Notes::new(&file.part.place, key, partial));
        Ok(file)
    }

    /// Goes on with an upload that rests.
    pub fn resume(
        spool: Arc<Shared>,
        upload: RequestId,
        resting: &Resting,
        form: &Arc<BodyForm>,
    ) -> Result<Self, ReplayError> {
        let mut part = Part::reopen(spool.place.clone(), upload, resting)?;
        let damaged = || ReplayError::Io(io::ErrorKind::InvalidData.into());
        let good = resting.good.ok_or_else(damaged)?;
        let read = read_notes(&resting.notes)?.ok_or_else(damaged)?;
        part.notes = Some(Notes::reopen(
            &spool.place,
            resting.notes.clone(),
            &read,
            good,
        )?);
        let mut decoder = BodyDecoder::new(form.clone());
        let file = part.file.try_clone()?;
        let mut stored = StoredPart(&mut part);
        decoder.push(&read.header, &mut stored)?;
        replay(&file, &mut decoder, &mut stored, good.offset)?;
        // Nothing that the sender did not send gets into a report.
        if decoder.taken() != good.offset || decoder.digest_so_far() != good.digest {
            return Err(damaged());
        }
        part.go_on();
        Ok(Self {
            spool,
            decoder,
            part,
        })
    }

    /// What has come.
    fn note(&self) -> Note {
        Note {
            offset: self.decoder.taken(),
            digest: self.decoder.digest_so_far(),
        }
    }
}

impl Suspend for ReportFile {
    fn suspend(self: Box<Self>) -> Option<Resting> {
        let note = self.note();
        self.part.suspend(note)
    }
}

impl SpoolWriter for ReportFile {
    fn push(&mut self, piece: &[u8]) -> Result<(), SpoolError> {
        self.decoder.push(piece, &mut self.part)?;
        let taken = self.decoder.taken();
        if self
            .part
            .notes
            .as_ref()
            .is_some_and(|notes| notes.is_due(taken))
        {
            let note = self.note();
            let noted = self.part.add_note(note);
            noted.map_err(|error| SpoolError::Storage(Cause::of(error)))?;
        }
        Ok(())
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
