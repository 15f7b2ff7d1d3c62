//! The protocol's "no": a value that says why, not an error of the program.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A request was understood and is not granted. The same request gets the same answer again, unless the reason is a
/// transient one: `duplicate`, `truncated`, `storage` or `busy`.
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
    ($($(#[doc = $doc:literal])* $name:ident = $code:tt, $status:literal;)*) => {
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

            /// The HTTP status that carries it.
            pub fn status(self) -> u16 {
                match self {
                    $(Self::$name => $status,)*
                }
            }
        }
    };
}

kinds! {
    /// No token, or one that is not known: register (again).
    Unauthorized = "unauthorized", 401;
    /// A token that is known, for something that is not its holder's.
    Forbidden = "forbidden", 403;
    /// No such job.
    UnknownJob = "unknown_job", 404;
    /// The job has no such client.
    UnknownClient = "unknown_client", 404;
    /// No such resource: a path, a version that never was.
    NotFound = "not_found", 404;
    /// It was there and is not kept any more.
    Gone = "gone", 410;
    /// The report came after its round had closed.
    Late = "late", 409;
    /// The report is being uploaded by another request at this moment.
    Duplicate = "duplicate", 409;
    /// The report starts from another version than the round's global model.
    Stale = "stale", 409;
    /// The round has not begun.
    WrongRound = "wrong_round", 409;
    /// The client is not in the round's cohort.
    NotInCohort = "not_in_cohort", 409;
    /// Another worker has the client's lease.
    NotLeased = "not_leased", 409;
    /// The worker's copy of the dataset is not the coordinator's.
    DatasetMismatch = "dataset_mismatch", 409;
    /// The request contradicts the state: a job that has ended can't be cancelled.
    Conflict = "conflict", 409;
    /// The body can't be decoded, has another layout, or a value that is not finite.
    Malformed = "malformed", 422;
    /// More examples than the client's partition has, or none.
    ExamplesExceeded = "examples_exceeded", 422;
    /// The job's specification is not one that can run here.
    InvalidJob = "invalid_job", 422;
    /// The body is larger than the configured limit.
    TooLarge = "too_large", 413;
    /// The upload broke off before its end.
    Truncated = "truncated", 400;
    /// The coordinator's storage has no room, or fails.
    Storage = "storage", 507;
    /// A limit of the coordinator is reached for now.
    Busy = "busy", 503;
}

impl RefusalKind {
    /// Whether the same request may be granted later.
    pub fn is_transient(self) -> bool {
        matches!(
            self,
            Self::Duplicate | Self::Truncated | Self::Storage | Self::Busy
        )
    }
}
