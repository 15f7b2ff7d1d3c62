//! Who did what to a coordinator.

use serde::{Deserialize, Serialize};

use crate::ids::{Timestamp, TokenId};

/// An action of an operator, or an admission of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct AuditEntry {
    /// Its number, from 1.
    pub number: u64,
    /// When.
    pub time: Timestamp,
    /// The name of the token that was shown; `in process`, `open` (a coordinator that asks for no token), `worker` or
    /// `coordinator`.
    pub by: String,
    /// The number of the token that was shown, if it was made by an operator or at the first start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenId>,
    /// The address that the request came from, if it came from one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What was done.
    pub action: AuditAction,
    /// To what, for people: `job 3`, `token 2 (lab)`.
    pub subject: String,
}

impl AuditEntry {
    /// An entry of this number.
    pub fn new(
        number: u64,
        time: Timestamp,
        by: impl Into<String>,
        action: AuditAction,
        subject: impl Into<String>,
    ) -> Self {
        Self {
            number,
            time,
            by: by.into(),
            token: None,
            from: None,
            action,
            subject: subject.into(),
        }
    }
}

/// What an entry of the audit is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AuditAction {
    /// A job was submitted.
    JobSubmitted,
    /// A job was cancelled.
    JobCancelled,
    /// A job was paused.
    JobPaused,
    /// A job was resumed.
    JobResumed,
    /// A job was deleted.
    JobDeleted,
    /// A token was made.
    TokenCreated,
    /// A token was revoked.
    TokenRevoked,
    /// A worker registered, and gets tasks.
    WorkerAdmitted,
    /// A worker registered, and waits for an operator's approval.
    WorkerPending,
    /// A worker that waited was let in.
    WorkerApproved,
    /// A worker gets no tasks for a while, since its reports were refused again and again.
    WorkerQuarantined,
    /// A quarantine was lifted.
    WorkerReleased,
    /// A worker's token was revoked.
    WorkerRevoked,
    /// A worker got a new token.
    WorkerTokenRotated,
}

impl AuditAction {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::JobSubmitted,
        Self::JobCancelled,
        Self::JobPaused,
        Self::JobResumed,
        Self::JobDeleted,
        Self::TokenCreated,
        Self::TokenRevoked,
        Self::WorkerAdmitted,
        Self::WorkerPending,
        Self::WorkerApproved,
        Self::WorkerQuarantined,
        Self::WorkerReleased,
        Self::WorkerRevoked,
        Self::WorkerTokenRotated,
    ];

    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::JobSubmitted => "submitted",
            Self::JobCancelled => "cancelled",
            Self::JobPaused => "paused",
            Self::JobResumed => "resumed",
            Self::JobDeleted => "deleted",
            Self::TokenCreated => "made",
            Self::TokenRevoked | Self::WorkerRevoked => "revoked",
            Self::WorkerAdmitted => "admitted",
            Self::WorkerPending => "let wait",
            Self::WorkerApproved => "approved",
            Self::WorkerQuarantined => "quarantined",
            Self::WorkerReleased => "released",
            Self::WorkerTokenRotated => "gave a new token to",
        }
    }
}
