//! Which upload the part of a broken one belongs to.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{ClientId, JobId, RoundId, WorkerId},
    parameters::Digest,
};

/// What an upload must have in common with one that broke off to go on with its part: all of it.
///
/// A spool keeps at most one part for each job, round, client and worker, whatever the digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PartialKey {
    /// The job.
    pub job: JobId,
    /// The round.
    pub round: RoundId,
    /// The client that the report is of.
    pub client: ClientId,
    /// The worker that sends it.
    pub worker: WorkerId,
    /// Of the whole body.
    pub digest: Digest,
}
