//! What keeps accepted reports until their round closes, as traits. It never decides which report counts.

use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc};

use thiserror::Error;

use super::{PartialKey, Report, ReportMetadata};
use crate::{
    Cause,
    ids::{ClientId, JobId, RequestId, RoundId},
    parameters::{
        BodyForm, Digest, EncodingError, LayoutError, Payloads, safetensors::SafetensorsError,
    },
};

/// Which report: of which client, in which round of which job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpoolKey {
    /// The job.
    pub job: JobId,
    /// The round.
    pub round: RoundId,
    /// The client.
    pub client: ClientId,
    /// The request that uploads it, so that a broken or overtaken upload never replaces the accepted one.
    pub upload: RequestId,
}

impl SpoolKey {
    /// The reports that a round accepted, out of all that a spool has stored.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Missing`] names the first client whose report is not there.
    pub(crate) fn accepted_reports<S>(
        stored: &BTreeMap<Self, S>,
        job: JobId,
        round: RoundId,
        accepted: &[(ClientId, RequestId)],
        report: impl Fn(ClientId, &S) -> Report,
    ) -> Result<Vec<Report>, SpoolError> {
        let mut reports = Vec::with_capacity(accepted.len());
        for &(client, upload) in accepted {
            let key = Self {
                job,
                round,
                client,
                upload,
            };
            let found = stored.get(&key).ok_or(SpoolError::Missing { client })?;
            reports.push(report(client, found));
        }
        Ok(reports)
    }

    /// All keys that a round of a job can have, in order.
    pub fn of_round(job: JobId, round: RoundId) -> RangeInclusive<Self> {
        let first = Self {
            job,
            round,
            client: ClientId(0),
            upload: RequestId(0),
        };
        let last = Self {
            client: ClientId(u32::MAX),
            upload: RequestId(u64::MAX),
            ..first
        };
        first..=last
    }
}

impl PartialKey {
    /// The report, as this request uploads it.
    pub fn report(self, upload: RequestId) -> SpoolKey {
        SpoolKey {
            job: self.job,
            round: self.round,
            client: self.client,
            upload,
        }
    }
}

/// Keeps reports from their upload to the end of their round.
///
/// # Contract
///
/// 1. A report is visible to [`Spool::reports`] only after [`SpoolWriter::finish`] or [`Spool::put`] returned it as stored.
///    A writer of [`Spool::begin`] that is dropped before that, or whose body is refused, leaves nothing behind.
/// 2. A stored report reads back to the bit: its metadata and each of its payloads, in whatever pieces it came.
/// 3. A body that is not exactly of its form, has a value that is not finite, or is not the one of its digest is refused with
///    [`SpoolError::Malformed`], uploaded or from memory.
/// 4. Uploads of one client under several keys do not affect each other. Which of them counts is the round machine's decision.
/// 5. [`Spool::forget`] and [`Spool::discard`] remove what they name and nothing else; to name what is not there is no error.
/// 6. A report that is held stays readable after it has been forgotten.
/// 7. All methods may be called from several threads.
/// 8. A spool may keep the part of a broken upload: of one that [`Spool::begin_resumable`] or [`Spool::resume`] began, and whose
///    writer was dropped. [`Spool::offset`] says how many bytes of the body it has, and 0 if it has none. These are the first
///    bytes that were pushed; the last ones may be missing.
/// 9. [`Spool::resume`] goes on with a part for the same [`PartialKey`] alone, and from its offset alone. All else is refused
///    with [`SpoolError::Offset`]. The report that comes of it is the one that an unbroken upload stores.
/// 10. A body with another digest than its key's is refused, and its part is removed: the next upload begins at 0.
/// 11. [`Spool::offset`] and [`Spool::resume`] take an upload over that still has a writer. That writer's bytes
///     count up to this moment, and it is refused with [`SpoolError::TakenOver`] from then on.
/// 12. There is at most one part for each job, round, client and worker: the next [`Spool::begin_resumable`] of them removes it. A
///     part is also removed when its report is stored, and by [`Spool::drop_partials`], [`Spool::discard`] and
///     [`Spool::retain`]; a writer that it still has is refused with [`SpoolError::TakenOver`] from then on.
///
/// A spool that implements none of the methods of 8 to 12 keeps no parts. `report::conformance` (feature `testing`) checks 1
/// to 6 and 8 to 12; of 7, that a report is read from several threads.
pub trait Spool: Send + Sync {
    /// Begins an upload whose body must be of this form. If the spool has a limit, space for all of it is set aside here.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Full`] if the spool's limit would be passed, [`SpoolError::Storage`] if its storage fails.
    fn begin(
        &self,
        key: SpoolKey,
        form: &Arc<BodyForm>,
    ) -> Result<Box<dyn SpoolWriter>, SpoolError>;

    /// Stores payloads that are in memory already, without another copy if the spool can.
    ///
    /// # Errors
    ///
    /// As an upload of the same values.
    fn put(
        &self,
        key: SpoolKey,
        form: &Arc<BodyForm>,
        metadata: ReportMetadata,
        payloads: Payloads,
    ) -> Result<(), SpoolError> {
        let mut writer = self.begin(key, form)?;
        for piece in payloads.pieces() {
            writer.push(&piece)?;
        }
        writer.finish(metadata, None)
    }

    /// Begins an upload, as [`Spool::begin`] does, and keeps its part if it breaks off. The default keeps none.
    ///
    /// # Errors
    ///
    /// As [`Spool::begin`].
    fn begin_resumable(
        &self,
        upload: RequestId,
        partial: PartialKey,
        form: &Arc<BodyForm>,
    ) -> Result<Box<dyn SpoolWriter>, SpoolError> {
        self.begin(partial.report(upload), form)
    }

    /// How many bytes of this body are kept of an upload that broke off; 0 if none. The body must be of this form.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Storage`].
    fn offset(&self, partial: PartialKey, form: &Arc<BodyForm>) -> Result<u64, SpoolError> {
        let _ = (partial, form);
        Ok(0)
    }

    /// Goes on with an upload that broke off: the writer takes the body from this offset on, in bytes.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Offset`] if the part that is kept ends elsewhere, or if there is none; otherwise as [`Spool::begin`].
    fn resume(
        &self,
        upload: RequestId,
        partial: PartialKey,
        form: &Arc<BodyForm>,
        offset: u64,
    ) -> Result<Box<dyn SpoolWriter>, SpoolError> {
        let _ = (upload, partial, form, offset);
        Err(SpoolError::Offset { kept: 0 })
    }

    /// Removes the parts of all broken uploads of a client in a round, whoever sent them: no report of it is wanted any more.
    fn drop_partials(&self, job: JobId, round: RoundId, client: ClientId) {
        let _ = (job, round, client);
    }

    /// Whether no method ever waits for a disk.
    fn is_memory(&self) -> bool {
        false
    }

    /// The stored reports of these clients and uploads, in the order given.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Missing`] if one is not there.
    fn reports(
        &self,
        job: JobId,
        round: RoundId,
        accepted: &[(ClientId, RequestId)],
    ) -> Result<Vec<Report>, SpoolError>;

    /// Takes up a report that an earlier process stored, and checks it.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Missing`] if it is not there, [`SpoolError::Malformed`] or [`SpoolError::Storage`] if it is damaged.
    fn reopen(&self, key: SpoolKey, form: &Arc<BodyForm>) -> Result<(), SpoolError> {
        let _ = form;
        self.reports(key.job, key.round, &[(key.client, key.upload)])
            .map(drop)
    }

    /// Removes all reports but those that `keeps` names, and all parts of broken uploads but those that `resumes` names: nobody
    /// knows of them. Called at the start, before any upload.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Storage`].
    fn retain(
        &self,
        keeps: &dyn Fn(SpoolKey) -> bool,
        resumes: &dyn Fn(PartialKey) -> bool,
    ) -> Result<(), SpoolError> {
        let _ = (keeps, resumes);
        Ok(())
    }

    /// Forgets one report, whose upload ended too late to count.
    fn forget(&self, key: SpoolKey);

    /// Forgets all reports of a round, and the parts of its broken uploads.
    fn discard(&self, job: JobId, round: RoundId);
}

/// One upload under way. Dropping it undoes it, unless its part can be kept.
pub trait SpoolWriter: Send {
    /// Takes the next piece of the safetensors body.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Malformed`] at the first piece that shows it, [`SpoolError::Storage`] if it can't be kept.
    fn push(&mut self, piece: &[u8]) -> Result<(), SpoolError>;

    /// Stores the report, once the whole body has been taken: once this returns, it is as durable as the spool makes
    /// it. `digest` is the body's, if its sender gave one.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Malformed`] if the body was not whole or is not the one that was sent, [`SpoolError::Storage`]
    /// if it can't be kept.
    fn finish(
        self: Box<Self>,
        metadata: ReportMetadata,
        digest: Option<Digest>,
    ) -> Result<(), SpoolError>;
}

/// Why a report could not be spooled.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SpoolError {
    /// No room at present: try again after the round.
    #[error("the spool is full: {needed} bytes more would pass its limit of {limit}")]
    Full {
        /// Bytes of the report.
        needed: u64,
        /// Bytes of all reports together.
        limit: u64,
    },
    /// The body is not a report of this layout.
    #[error(transparent)]
    Malformed(#[from] SafetensorsError),
    /// The storage has no room or fails: this report is lost, others are not. Try again.
    #[error("the spool's storage fails: {0}")]
    Storage(#[source] Cause),
    /// The rest of a body does not begin where the part that is kept of it ends: ask for the offset.
    #[error("{kept} bytes of this report are kept, and the rest does not begin there")]
    Offset {
        /// Bytes of the part; 0: there is none.
        kept: u64,
    },
    /// Another request goes on with this upload, or its report is not wanted any more.
    #[error("another request goes on with this upload, or nobody needs it any more")]
    TakenOver,
    /// A report that should be there is not.
    #[error("the report of client {client} is not in the spool, or is damaged there")]
    Missing {
        /// The client.
        client: ClientId,
    },
}

impl From<EncodingError> for SpoolError {
    fn from(error: EncodingError) -> Self {
        match error {
            EncodingError::Malformed(error) => Self::Malformed(error),
            other => Self::Storage(Cause::of(other)),
        }
    }
}

impl From<LayoutError> for SpoolError {
    fn from(error: LayoutError) -> Self {
        Self::Malformed(error.into())
    }
}
