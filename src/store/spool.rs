//! Reports in files: each is written as it arrives, and read back by block, so that none is ever held whole.
//!
//! A report is `spool/job-J/round-R/client-C-UPLOAD.report` in the [`DataFolder`]: its payloads, each in its form's order
//! ([`crate::parameters::Form`]) and at a multiple of eight bytes, then a trailer that says what it is (`trailer.rs`). While it is uploaded, its
//! name ends in `.part`. It gets its own name once it is whole, checked and on the disk, so that what has that name after a
//! crash is an accepted report. A large one has notes beside it, `client-C-UPLOAD.resume`, with which it can go on after a
//! break (`notes.rs`).

#[cfg(feature = "sqlite")]
pub(super) mod at_rest;
mod handles;
mod leftovers;
mod notes;
mod part;
mod partials;
mod place;
mod reopen;
mod replay;
mod resting;
mod resumable;
mod rounds;
mod spooled;
mod stored;
#[cfg(test)]
mod tests;
mod trailer;
mod upload;

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use handles::Handles;
use leftovers::remove_leftovers;
pub use place::FileSpoolConfig;
use place::Place;
use resumable::ResumableWriter;
use rounds::Rounds;
use stored::{Shared, Stored};
#[cfg(test)]
pub(super) use trailer::{PayloadTrailer, Trailer};
use upload::ReportFile;

use super::DataFolder;
use crate::{
    Cause,
    ids::{ClientId, JobId, RequestId, RoundId},
    parameters::{BlockReader, BodyForm},
    report::{PartialKey, Report, Spool, SpoolError, SpoolKey, SpoolWriter},
};

/// Reports in files of a [`DataFolder`]. What is full is the disk; there is no other limit. Every method may wait for it.
///
/// A report that is held stays readable after it has been forgotten: its file is removed with the last of its readers.
#[derive(Clone)]
pub struct FileSpool(Arc<Shared>);

impl fmt::Debug for FileSpool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FileSpool").finish_non_exhaustive()
    }
}

impl FileSpool {
    /// The spool of this folder. There is one at a time.
    pub fn new(folder: Arc<DataFolder>, config: FileSpoolConfig) -> Self {
        Self(Arc::new(Shared {
            place: Arc::new(Place {
                config,
                rounds: Rounds::new(folder),
                handles: Handles::new(config.max_open),
            }),
            stored: Mutex::default(),
            partials: Default::default(),
        }))
    }

    /// How many stored reports are open.
    #[cfg(test)]
    pub(super) fn open(&self) -> usize {
        self.0.place.handles.open()
    }
}

impl Spool for FileSpool {
    fn begin(
        &self,
        key: SpoolKey,
        form: &Arc<BodyForm>,
    ) -> Result<Box<dyn SpoolWriter>, SpoolError> {
        let upload = ReportFile::begin(self.0.clone(), key, form)?;
        Ok(Box::new(upload))
    }

    fn begin_resumable(
        &self,
        upload: RequestId,
        partial: PartialKey,
        form: &Arc<BodyForm>,
    ) -> Result<Box<dyn SpoolWriter>, SpoolError> {
        let writer = ResumableWriter::begin(self.0.clone(), upload, partial, form)?;
        Ok(Box::new(writer))
    }

    fn offset(&self, partial: PartialKey, form: &Arc<BodyForm>) -> Result<u64, SpoolError> {
        Ok(resumable::offset(&self.0, partial, form))
    }

    fn resume(
        &self,
        upload: RequestId,
        partial: PartialKey,
        form: &Arc<BodyForm>,
        offset: u64,
    ) -> Result<Box<dyn SpoolWriter>, SpoolError> {
        let writer = ResumableWriter::resume(self.0.clone(), upload, partial, form, offset)?;
        Ok(Box::new(writer))
    }

    fn drop_partials(&self, job: JobId, round: RoundId, client: ClientId) {
        self.0.partials.end(&self.0.place, job, round, Some(client));
    }

    fn reports(
        &self,
        job: JobId,
        round: RoundId,
        accepted: &[(ClientId, RequestId)],
    ) -> Result<Vec<Report>, SpoolError> {
        SpoolKey::accepted_reports(&self.0.stored(), job, round, accepted, |client, found| {
            let mut payloads: Vec<(String, Arc<dyn BlockReader + Send + Sync>)> = Vec::new();
            for (name, reader) in &found.payloads {
                payloads.push((name.clone(), Arc::new(reader.clone())));
            }
            Report::new(client, round, found.metadata.clone(), payloads)
        })
    }

    fn reopen(&self, key: SpoolKey, form: &Arc<BodyForm>) -> Result<(), SpoolError> {
        let stored = reopen::reopen(&self.0.place, key, form)?;
        self.0.stored().insert(key, stored);
        Ok(())
    }

    fn retain(
        &self,
        keeps: &dyn Fn(SpoolKey) -> bool,
        resumes: &dyn Fn(PartialKey) -> bool,
    ) -> Result<(), SpoolError> {
        let removed = remove_leftovers(&self.0, keeps, resumes);
        removed.map_err(|error| SpoolError::Storage(Cause::of(error)))
    }

    fn forget(&self, key: SpoolKey) {
        let gone = self.0.stored().remove(&key);
        // Files are removed outside of the lock.
        if let Some(stored) = gone {
            stored.forget();
        }
    }

    fn discard(&self, job: JobId, round: RoundId) {
        let gone: Vec<Stored> = {
            let mut stored = self.0.stored();
            let of_round = SpoolKey::of_round(job, round);
            stored
                .extract_if(of_round, |_, _| true)
                .map(|(_, report)| report)
                .collect()
        };
        // Files are removed outside of the lock.
        for stored in gone {
            stored.forget();
        }
        self.0.partials.end(&self.0.place, job, round, None);
    }
}
