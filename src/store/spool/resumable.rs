//! The writer of an upload that can go on after a break.

use std::sync::Arc;

use super::{
    partials::{Held, Slot},
    stored::Shared,
    upload::ReportFile,
};
use crate::{
    ids::RequestId,
    parameters::{BodyForm, Digest},
    report::{PartialKey, ReportMetadata, SpoolError, SpoolWriter},
};

/// Adds to an upload until another writer takes it over. Dropped before its end, it leaves the part.
pub(super) struct ResumableWriter {
    spool: Arc<Shared>,
    partial: PartialKey,
    slot: Arc<Slot>,
}

impl ResumableWriter {
    /// Begins an upload, which takes the place of the one before.
    pub fn begin(
        spool: Arc<Shared>,
        upload: RequestId,
        partial: PartialKey,
        form: &Arc<BodyForm>,
    ) -> Result<Self, SpoolError> {
        let file = ReportFile::begin_resumable(spool.clone(), upload, partial, form)?;
        let held = Held::Writing(Box::new(file));
        let (slot, before) = spool.partials.insert(partial, held);
        if let Some(before) = before {
            before.end(&spool.place);
        }
        Ok(Self {
            spool,
            partial,
            slot,
        })
    }

    /// Goes on with an upload at this offset.
    pub fn resume(
        spool: Arc<Shared>,
        upload: RequestId,
        partial: PartialKey,
        form: &Arc<BodyForm>,
        offset: u64,
    ) -> Result<Self, SpoolError> {
        let Some(before) = spool.partials.find(partial) else {
            return Err(SpoolError::Offset { kept: 0 });
        };
        let mut held = before.held();
        held.rest();
        let kept = held.offset(&spool.place, form);
        if kept == 0 || kept != offset {
            return Err(SpoolError::Offset { kept });
        }
        let Held::Resting(mut resting) = held.take() else {
            return Err(SpoolError::Offset { kept: 0 });
        };
        let resumed = ReportFile::resume(spool.clone(), upload, &resting, form);
        let file = match resumed {
            Ok(file) => Box::new(file),
            Err(error) => {
                tracing::warn!(client = %partial.client, round = %partial.round, %error, "not all of the part of a broken upload can be used");
                // Less of it may be good.
                resting.good = None;
                *held = Held::Resting(resting);
                let kept = held.offset(&spool.place, form);
                return Err(SpoolError::Offset { kept });
            }
        };
        // If it was removed meanwhile, as with the end of its round, the file goes with this.
        let replaced = spool.partials.replace(partial, &before, file);
        let slot = replaced.map_err(|_| SpoolError::TakenOver)?;
        drop(held);
        Ok(Self {
            spool,
            partial,
            slot,
        })
    }
}

/// How many bytes of this body are kept. Takes the upload over, if it still has a writer.
pub(super) fn offset(spool: &Shared, partial: PartialKey, form: &Arc<BodyForm>) -> u64 {
    let Some(slot) = spool.partials.find(partial) else {
        return 0;
    };
    let mut held = slot.held();
    held.rest();
    let offset = held.offset(&spool.place, form);
    if offset == 0 {
        spool.partials.remove(partial, &slot);
    }
    offset
}

impl SpoolWriter for ResumableWriter {
    fn push(&mut self, piece: &[u8]) -> Result<(), SpoolError> {
        let mut held = self.slot.held();
        let Held::Writing(file) = &mut *held else {
            return Err(SpoolError::TakenOver);
        };
        let pushed = file.push(piece);
        if pushed.is_err() {
            // The body is no report, or there is no room for it: nothing of it is of use.
            let gone = held.take();
            self.spool.partials.remove(self.partial, &self.slot);
            drop(gone);
        }
        pushed
    }

    fn finish(
        self: Box<Self>,
        metadata: ReportMetadata,
        digest: Option<Digest>,
    ) -> Result<(), SpoolError> {
        let mut held = self.slot.held();
        let Held::Writing(file) = held.take() else {
            return Err(SpoolError::TakenOver);
        };
        drop(held);
        self.spool.partials.remove(self.partial, &self.slot);
        // The one that the part is kept under, if the sender does not say it again.
        file.finish(metadata, digest.or(Some(self.partial.digest)))
    }
}

impl Drop for ResumableWriter {
    fn drop(&mut self) {
        let mut held = self.slot.held();
        let Held::Writing(_) = &*held else {
            return;
        };
        held.rest();
        if matches!(*held, Held::Gone) {
            self.spool.partials.remove(self.partial, &self.slot);
        }
    }
}
