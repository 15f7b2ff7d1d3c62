//! Reports in files: each is written as it arrives, and read back by block, so that none is ever held whole.
//!
//! A report is `spool/job-J/round-R/client-C-UPLOAD.report` in the [`DataFolder`]: its payloads, each in its form's order
//! ([`crate::parameters::Form`]) and at a multiple of eight bytes, then a trailer that says what it is (`trailer.rs`). While it is uploaded, its
//! name ends in `.part`. It gets its own name once it is whole, checked and on the disk, so that what has that name after a
//! crash is an accepted report.

mod handles;
mod rounds;
mod spooled;
mod trailer;
mod upload;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use handles::Handles;
use rounds::Rounds;
use spooled::SpooledFile;
#[cfg(test)]
pub(super) use trailer::{PayloadTrailer, Trailer};
use upload::Upload;

use super::DataFolder;
use crate::{
    ids::{ClientId, JobId, RequestId, RoundId},
    parameters::{BlockReader, BodyForm, EncodedReader},
    report::{Report, ReportMetadata, Spool, SpoolError, SpoolKey, SpoolWriter},
};

/// What a [`FileSpool`] may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileSpoolConfig {
    /// How many stored reports are open at once, at most, whatever their number; at least 1. Uploads are open beside them.
    pub max_open: usize,
    /// After how many bytes of an upload they are brought to the disk, so that its end does not wait for all of them;
    /// 0: at its end alone.
    pub sync_every: u64,
    /// How many bytes of small pieces an upload gathers before it writes them.
    pub gather: usize,
}

impl Default for FileSpoolConfig {
    fn default() -> Self {
        Self {
            max_open: 256,
            sync_every: 32 << 20,
            gather: 256 << 10,
        }
    }
}

/// Reports in files of a [`DataFolder`]. What is full is the disk; there is no other limit. Every method may wait for it.
///
/// A report that somebody holds stays readable after it has been forgotten: its file goes with the last of its readers.
#[derive(Clone)]
pub struct FileSpool(Arc<Inner>);

impl fmt::Debug for FileSpool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FileSpool").finish_non_exhaustive()
    }
}

struct Inner {
    place: Arc<Place>,
    stored: Mutex<BTreeMap<SpoolKey, Stored>>,
}

/// What uploads and stored reports need of their spool.
struct Place {
    config: FileSpoolConfig,
    rounds: Rounds,
    handles: Handles,
}

struct Stored {
    metadata: ReportMetadata,
    /// Each payload by name: all of them in one file.
    payloads: Vec<(String, EncodedReader<SpooledFile>)>,
}

impl Stored {
    /// Removes the file with its last reader.
    fn forget(&self) {
        if let Some((_, reader)) = self.payloads.first() {
            reader.source().forget();
        }
    }
}

impl FileSpool {
    /// The spool of this folder. There is one at a time.
    pub fn new(folder: Arc<DataFolder>, config: FileSpoolConfig) -> Self {
        Self(Arc::new(Inner {
            place: Arc::new(Place {
                config,
                rounds: Rounds::new(folder),
                handles: Handles::new(config.max_open),
            }),
            stored: Mutex::default(),
        }))
    }

    /// How many stored reports are open.
    #[cfg(test)]
    pub(super) fn open(&self) -> usize {
        self.0.place.handles.open()
    }
}

impl Inner {
    fn stored(&self) -> MutexGuard<'_, BTreeMap<SpoolKey, Stored>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spool for FileSpool {
    fn begin(
        &self,
        key: SpoolKey,
        form: &Arc<BodyForm>,
    ) -> Result<Box<dyn SpoolWriter>, SpoolError> {
        let upload = Upload::begin(self.0.clone(), key, form)?;
        Ok(Box::new(upload))
    }

    fn reports(
        &self,
        job: JobId,
        round: RoundId,
        accepted: &[(ClientId, RequestId)],
    ) -> Result<Vec<Report>, SpoolError> {
        let stored = self.0.stored();
        let report = |&(client, upload): &(ClientId, RequestId)| {
            let key = SpoolKey {
                job,
                round,
                client,
                upload,
            };
            let found = stored.get(&key).ok_or(SpoolError::Missing { client })?;
            let mut payloads: Vec<(String, Arc<dyn BlockReader + Send + Sync>)> = Vec::new();
            for (name, reader) in &found.payloads {
                payloads.push((name.clone(), Arc::new(reader.clone())));
            }
            Ok(Report::new(client, round, found.metadata.clone(), payloads))
        };
        accepted.iter().map(report).collect()
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
            let keys: Vec<_> = stored
                .range(SpoolKey::of_round(job, round))
                .map(|(key, _)| *key)
                .collect();
            keys.iter().filter_map(|key| stored.remove(key)).collect()
        };
        // Files are removed outside of the lock.
        for stored in gone {
            stored.forget();
        }
    }
}
