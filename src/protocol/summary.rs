//! Jobs, workers and the coordinator as operators see them.

use serde::{Deserialize, Serialize};

use super::Registration;
use crate::{
    ids::{CoordinatorId, JobId, ModelVersion, RoundId, Timestamp, WorkerId},
    job::JobSpec,
    parameters::Digest,
    round::{BestVersion, MeasuredVersion, Outcome, WorkerState},
};

/// A job and its progress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct JobSummary {
    /// Its number.
    pub job: JobId,
    /// What was asked for.
    pub spec: JobSpec,
    /// One word: queued, waiting, preparing, gathering, dealing, paused, evaluating, planning, collecting, aggregating, publishing,
    /// finishing, completed, stopped, failed, cancelled.
    pub phase: String,
    /// What it waits for, or how it ended, in words.
    pub detail: String,
    /// How it ended, once it has.
    pub outcome: Option<Outcome>,
    /// Number of clients; none before it started.
    pub clients: Option<u32>,
    /// The last round that began; 0 before the first.
    pub round: RoundId,
    /// The version of the global model.
    pub version: ModelVersion,
    /// Reports accepted in the current round.
    pub accepted: usize,
    /// The current round's goal; 0 outside of one.
    pub goal: usize,
    /// Number of parameters of the model.
    pub parameters: u64,
    /// What it goes on from; left out if it began with an initial model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continued: Option<ContinuedFrom>,
    /// The best version so far, with all that was measured of it; none before a version was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<BestVersion>,
    /// The latest version that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_measured: Option<MeasuredVersion>,
    /// The CRC-32 of the initial model's values as little-endian f32, as `crc32=` and eight hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "http", schema(value_type = Option<String>, pattern = "^crc32=[0-9a-f]{8}$"))]
    pub initial_digest: Option<Digest>,
    /// The number of the last entry of its log; 0 in answers of earlier versions.
    #[serde(default)]
    pub last_event: u64,
    /// When it was submitted, in milliseconds since the Unix epoch.
    pub submitted: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
}

/// What a job goes on from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
pub struct ContinuedFrom {
    /// The other job.
    pub job: JobId,
    /// The version of its model.
    pub version: ModelVersion,
    /// Whether this job's rounds are those that the other one would have had next, to the bit.
    pub is_exact: bool,
    /// What is not as in the other job, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A worker, and whether it is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct WorkerSummary {
    /// Its number.
    pub worker: WorkerId,
    /// What it said at registration.
    pub registration: Registration,
    /// Whether it is there.
    pub state: WorkerState,
    /// When it registered, in milliseconds since the Unix epoch.
    pub registered: Timestamp,
    /// When its last request came.
    pub last_seen: Timestamp,
    /// How many clients of the running jobs it acts for.
    pub clients: usize,
    /// How many examples one of its slots trains in a second, as its last reports say: on the model and the dataset of
    /// the first running job that it was measured on, else on those that it trained last. None before it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub examples_per_second: Option<f64>,
    /// Whether it may have tasks.
    #[serde(default)]
    pub admission: Admission,
    /// Why not, if it may not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// When its quarantine ends, if it is in one and no operator ends it before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_until: Option<Timestamp>,
    /// The name of what let it register: a join token, `open` or `in process`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub joined_by: String,
    /// How many of its reports were refused for what was in them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub refused_reports: u64,
}

/// Whether a worker may have tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Admission {
    /// It may.
    #[default]
    Admitted,
    /// It waits until an operator lets it in.
    Pending,
    /// Its reports were refused again and again: it gets no tasks for a while.
    Quarantined,
    /// An operator revoked its token: it has to register again.
    Revoked,
}

impl std::fmt::Display for Admission {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(match self {
            Self::Admitted => "admitted",
            Self::Pending => "pending",
            Self::Quarantined => "quarantined",
            Self::Revoked => "revoked",
        })
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Whether the coordinator is well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct Health {
    /// Which coordinator it is; empty from one of version 0.1.
    #[serde(default)]
    pub coordinator: CoordinatorId,
    /// The version of the coordinator's program.
    pub version: String,
    /// The newest version of the protocol that it speaks.
    pub protocol: u32,
    /// Number of live workers.
    pub workers: usize,
    /// The jobs that run, in order.
    pub running: Vec<JobId>,
    /// Number of jobs that wait for one of them to end.
    pub queued: usize,
    /// What keeps the coordinator from writing its journal, if anything does: then it is not well, and what needs the journal waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<JournalStall>,
}

/// Why the coordinator can't write down what happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct JournalStall {
    /// Since when, in milliseconds since the Unix epoch.
    pub since: Timestamp,
    /// The reason, for people.
    pub reason: String,
}
