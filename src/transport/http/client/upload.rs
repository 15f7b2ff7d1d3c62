//! A report on its way to the coordinator. If it breaks off, the rest of it is sent, so that a large report over a bad line needs
//! no second start.
//!
//! The coordinator is asked only after a break how much it has kept, and only for a large report. How often a whole report is
//! tried is the worker's business: if the coordinator can't be asked, this gives up, and the next try asks first.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::sleep;

use super::{connection::Connection, requests::exchange};
use crate::{
    ids::{ClientId, JobId, RoundId},
    parameters::{Digest, Payloads},
    report::{RefusalKind, ReportMetadata},
    transport::{
        Credentials, ReportBody, Request, Response, TransportError, http::outbound::Outbound,
    },
};

/// The longest pause before the rest is sent.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Reports whose upload broke off, by what the next try knows of them. Clones share them.
#[derive(Clone, Default)]
pub(super) struct BrokenUploads(Arc<Mutex<ByClient>>);

/// The last report of each client that broke off.
type ByClient = BTreeMap<(JobId, ClientId), (RoundId, Digest)>;

impl BrokenUploads {
    fn locked(&self) -> MutexGuard<'_, ByClient> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, report: &Report, digest: Digest) {
        let mut broken = self.locked();
        // What is left of rounds that have ended need not be kept.
        broken.retain(|(job, _), (round, _)| *job != report.job || *round >= report.round);
        broken.insert((report.job, report.client), (report.round, digest));
    }

    /// Whether the last upload of this report broke off; said once.
    fn take(&self, report: &Report, digest: Digest) -> bool {
        let found = self.locked().remove(&(report.job, report.client));
        found == Some((report.round, digest))
    }
}

/// A report whose payloads are in memory, so that any part of it can be sent again.
#[derive(Clone)]
pub(super) struct Report {
    pub credentials: Credentials,
    pub job: JobId,
    pub round: RoundId,
    pub client: ClientId,
    pub metadata: ReportMetadata,
    pub payloads: Payloads,
}

impl Report {
    /// The request that sends its body from this byte on.
    fn request(&self, digest: Digest, offset: u64) -> Request {
        let payloads = self.payloads.clone();
        let body = if offset == 0 {
            ReportBody::Memory(payloads)
        } else {
            let rest = Outbound::rest(payloads.pieces(), offset);
            ReportBody::Rest {
                length: rest.length(),
                bytes: rest.into_stream(),
                digest,
                offset,
            }
        };
        Request::Report {
            credentials: self.credentials.clone(),
            job: self.job,
            round: self.round,
            client: self.client,
            metadata: self.metadata.clone(),
            body,
        }
    }

    /// The request that asks how much of it is kept.
    fn question(&self, digest: Digest) -> Request {
        Request::UploadOffset {
            credentials: self.credentials.clone(),
            job: self.job,
            round: self.round,
            client: self.client,
            digest,
        }
    }
}

/// What an attempt came to.
type Outcome = Result<Response, TransportError>;

/// Sends a report, and its rest each time that it breaks off, as long as more of it is kept each time.
pub(super) async fn send(
    connection: &Connection,
    broken: &BrokenUploads,
    report: &Report,
    digest: Digest,
) -> Outcome {
    let mut outcome = None;
    if !broken.take(report, digest) {
        let sent = exchange(connection, report.request(digest, 0), Some(digest)).await;
        if !broke_off(&sent) {
            return sent;
        }
        outcome = Some(sent);
    }
    let config = &connection.config;
    let length: u64 = report
        .payloads
        .pieces()
        .iter()
        .map(|piece| piece.len() as u64)
        .sum();
    let (mut furthest, mut tries) = (0, 0);
    while tries < config.resume_tries {
        let pause = config
            .resume_pause
            .saturating_mul(1u32.checked_shl(tries).unwrap_or(u32::MAX));
        sleep(pause.min(LONGEST_PAUSE)).await;
        tries += 1;
        let kept = match exchange(connection, report.question(digest), None).await {
            Ok(Response::Accepted) => return Ok(Response::Accepted),
            Ok(Response::UploadOffset(kept)) if kept <= length => kept,
            Err(error) if error.is_transient() => {
                broken.note(report, digest);
                return Err(error);
            }
            // A coordinator that does not know the question, or refuses it: its answer to the report says why.
            _ => 0,
        };
        if kept == 0 {
            return match outcome {
                Some(outcome) => outcome,
                None => exchange(connection, report.request(digest, 0), Some(digest)).await,
            };
        }
        if kept > furthest {
            (furthest, tries) = (kept, 0);
        }
        tracing::debug!(client = %report.client, kept, length, "a report broke off: sending the rest");
        let sent = exchange(connection, report.request(digest, kept), Some(digest)).await;
        if !broke_off(&sent) {
            return sent;
        }
        outcome = Some(sent);
    }
    broken.note(report, digest);
    outcome.unwrap_or(Err(TransportError::Unreachable(
        "the upload broke off".into(),
    )))
}

/// Whether a part of the report may have come to the coordinator.
fn broke_off(outcome: &Outcome) -> bool {
    match outcome {
        Ok(Response::Refused(refusal)) => matches!(
            refusal.kind,
            RefusalKind::Truncated | RefusalKind::UploadOffset | RefusalKind::Duplicate
        ),
        Ok(_) => false,
        Err(error) => error.is_transient(),
    }
}
