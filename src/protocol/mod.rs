//! What is on the wire, and nothing else: the messages between coordinator, workers and operators, with their JSON forms.
//!
//! `docs/protocol.md` tells when each is sent. How they travel is [`crate::transport`]'s business; the values of models and
//! reports are [`crate::parameters`]'.

mod audit;
mod dataset;
mod hardware;
mod record;
mod registration;
mod summary;
mod task;
mod token;

pub use audit::{AuditAction, AuditEntry};
pub use dataset::{DatasetInfo, DatasetPartition};
pub use hardware::{Gpu, Hardware};
pub use record::{Contribution, LoggedEvent, MeasuredClient, RoundRecord};
pub use registration::{Registered, Registration};
pub use summary::{Admission, ContinuedFrom, Health, JobSummary, JournalStall, WorkerSummary};
pub use task::{
    Alive, Failure, Heartbeat, JobMessage, Poll, ShareEvaluation, TaskMessage, TaskWork,
};
pub use token::{
    CreatedToken, LONGEST_EXPIRY_S, NewToken, OwnAccess, Rotated, Scope, Token, TokenKind,
    TokenSummary,
};

/// The newest version of the protocol that is spoken here.
pub const PROTOCOL: u32 = 2;

/// The oldest version of the protocol that is spoken here. A worker that speaks none of these is refused at registration.
/// Protocol 1 knows jobs in f32 whose reports are a delta alone, and models that are sent whole.
pub const OLDEST_PROTOCOL: u32 = 1;

/// The payload of a model version that has its frozen tensors.
pub const FROZEN: &str = "frozen";
