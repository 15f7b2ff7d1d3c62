//! What is said of a report's body before it comes, and why a body is refused.

use crate::{
    parameters::{Digest, safetensors::SafetensorsError},
    report::{Refusal, RefusalKind, SpoolError},
    transport::BodyError,
};

/// What is said of a body before it comes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Announced {
    /// How many bytes will come, if that is known.
    pub length: Option<u64>,
    /// Of the whole body.
    pub digest: Option<Digest>,
    /// Where in the whole body they begin.
    pub offset: u64,
}

impl Announced {
    /// Refuses a body that would be longer than this, in bytes.
    pub fn check(self, limit: u64) -> Result<(), Refusal> {
        let whole = self.length.map(|length| length.saturating_add(self.offset));
        match whole.filter(|whole| *whole > limit) {
            Some(whole) => Err(too_large(whole, limit)),
            None => Ok(()),
        }
    }
}

pub(super) fn too_large(bytes: u64, limit: u64) -> Refusal {
    let detail = format!(
        "the report has {bytes} bytes or more, and {limit} is the most for this job; the coordinator's --report-overhead raises it"
    );
    Refusal::new(RefusalKind::TooLarge, detail)
}

pub(super) fn failed(error: tokio::task::JoinError) -> Refusal {
    let detail = format!("the report could not be stored: {error}");
    Refusal::new(RefusalKind::Storage, detail)
}

pub(super) fn broken(error: BodyError) -> Refusal {
    let kind = match error {
        BodyError::TooLarge { .. } => RefusalKind::TooLarge,
        _ => RefusalKind::Truncated,
    };
    Refusal::new(kind, error.to_string())
}

pub(super) fn refuse(error: SpoolError) -> Refusal {
    let kind = match &error {
        SpoolError::Full { .. } => RefusalKind::Busy,
        SpoolError::Storage(_) => RefusalKind::Storage,
        SpoolError::Offset { .. } => RefusalKind::UploadOffset,
        SpoolError::TakenOver => RefusalKind::Duplicate,
        // Broken on its way: the same report may be sent again.
        SpoolError::Malformed(
            SafetensorsError::Truncated { .. } | SafetensorsError::Digest { .. },
        ) => RefusalKind::Truncated,
        SpoolError::Malformed(_) | SpoolError::Missing { .. } => RefusalKind::Malformed,
    };
    Refusal::new(kind, error.to_string())
}

/// Whether no report of the client can come in this round any more. Of refusals that are not transient, one alone says something
/// else: the lease may come back to its sender.
pub(super) fn is_final(refusal: &Refusal) -> bool {
    !refusal.kind.is_transient() && refusal.kind != RefusalKind::NotLeased
}
