//! What a round knows of each client of its cohort.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{ClientId, RequestId, WorkerId},
    report::Refusal,
    round::failures::Failure,
};

/// A client of the cohort.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Member {
    pub progress: MemberProgress,
    /// Number of examples in its partition in this round: a verdict must not change when the data is dealt again. It does if
    /// the worker that has the data comes back with more or fewer examples, since all that it then sends is new.
    pub examples: u64,
    /// The worker that acts for the client.
    pub holder: Option<WorkerId>,
    /// Who was given the task last.
    pub issued_to: Option<WorkerId>,
    /// Why it takes no further part, if so.
    pub failure: Option<Failure>,
}

/// How far a client is with its report.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) enum MemberProgress {
    #[default]
    Pending,
    Uploading(RequestId),
    Accepted {
        upload: RequestId,
        worker: WorkerId,
        claim: Claim,
    },
    /// Takes no further part: this refusal is the verdict on all that it sends.
    Failed(Refusal),
}

impl MemberProgress {
    pub fn is_outstanding(&self) -> bool {
        matches!(self, Self::Pending | Self::Uploading(_))
    }

    pub fn is_accepted(&self) -> bool {
        matches!(self, Self::Accepted { .. })
    }
}

/// An admitted upload.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Admitted {
    pub client: ClientId,
    pub worker: WorkerId,
    pub claim: Claim,
}

/// What a report says of itself that the round's event log needs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Claim {
    pub examples: u64,
    pub train_loss: Option<f64>,
}
