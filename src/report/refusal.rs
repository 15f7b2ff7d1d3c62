//! The protocol's "no": a value that says why, not an error of the program.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A request was understood and is not granted. The same request gets the same answer again, unless the reason is a
/// transient one: `duplicate`, `upload_offset`, `truncated`, `storage`, `busy` or
/// `too_many`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
pub struct Refusal {
    /// Why, for programs.
    pub kind: RefusalKind,
    /// Why, for people.
    pub detail: String,
}

impl Refusal {
    /// A refusal of this kind.
    pub fn new(kind: RefusalKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
        }
    }
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.kind.code(), self.detail)
    }
}

// `$code` is a `tt`: the derive of the schema reads the attribute's tokens, and would not find a `literal` among them.
macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $name:ident = $code:tt;)*) => {
        /// The reasons for a refusal.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
        #[non_exhaustive]
        pub enum RefusalKind {
            $($(#[doc = $doc])* #[serde(rename = $code)] $name,)*
        }

        impl RefusalKind {
            /// All of them.
            pub const ALL: &'static [RefusalKind] = &[$(Self::$name),*];

            /// The name on the wire, in snake case.
            pub fn code(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)*
                }
            }

            /// What it says, in a sentence.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc),*).trim_ascii(),)*
                }
            }
        }
    };
}

kinds! {
    /// No token, or one that is not known: register (again).
    Unauthorized = "unauthorized";
    /// A token that is known, for something that is not its holder's.
    Forbidden = "forbidden";
    /// No such job.
    UnknownJob = "unknown_job";
    /// The job has no such client.
    UnknownClient = "unknown_client";
    /// No such resource: a path, a version that never was.
    NotFound = "not_found";
    /// It was there and is not kept any more.
    Gone = "gone";
    /// The report came after its round had closed.
    Late = "late";
    /// The report is being uploaded by another request at this moment.
    Duplicate = "duplicate";
    /// The rest of a report does not begin where the part that is kept of it ends: ask for the offset.
    UploadOffset = "upload_offset";
    /// The report starts from another version than the round's global model.
    Stale = "stale";
    /// The round has not begun.
    WrongRound = "wrong_round";
    /// The client is not in the round's cohort.
    NotInCohort = "not_in_cohort";
    /// Another worker has the client's lease.
    NotLeased = "not_leased";
    /// The worker's copy of the dataset is not the coordinator's.
    DatasetMismatch = "dataset_mismatch";
    /// The request contradicts the state: a job that has ended can't be cancelled.
    Conflict = "conflict";
    /// The body can't be decoded, has another layout, or a value that is not finite.
    Malformed = "malformed";
    /// More examples than the client's partition has, or none.
    ExamplesExceeded = "examples_exceeded";
    /// The job's specification is not one that can run here.
    InvalidJob = "invalid_job";
    /// The body is larger than the configured limit.
    TooLarge = "too_large";
    /// The upload broke off before its end.
    Truncated = "truncated";
    /// The coordinator's storage has no room, or fails.
    Storage = "storage";
    /// A limit of the coordinator is reached for now.
    Busy = "busy";
    /// This caller sends more than it may: wait as long as `Retry-After` says.
    TooMany = "too_many";
}

impl RefusalKind {
    /// Whether the same request may be granted later.
    pub fn is_transient(self) -> bool {
        matches!(
            self,
            Self::Duplicate
                | Self::UploadOffset
                | Self::Truncated
                | Self::Storage
                | Self::Busy
                | Self::TooMany
        )
    }
}
