//! The verdicts that a round can give, and the refusals in them. It knows no round's state: that is for
//! [`super::judge`].

use crate::{
    ids::{ClientId, ModelVersion, RoundId, WorkerId},
    report::{Refusal, RefusalKind, ReportMetadata},
};

/// What to say to an offered report.
#[derive(Debug, PartialEq)]
pub(in crate::round) enum Offer {
    Admit,
    AlreadyAccepted,
    Refuse(Refusal),
    /// Refuse, and expect nothing more of the client.
    Fail(Refusal),
}

/// What to say of an upload that ended.
#[derive(Debug, PartialEq)]
pub(in crate::round) enum Verdict {
    Accept {
        worker: WorkerId,
        examples: u64,
    },
    AlreadyAccepted,
    /// No such upload was admitted, or it has ended before.
    Unknown(Refusal),
    Refuse {
        worker: WorkerId,
        refusal: Refusal,
    },
    /// Refuse, and expect nothing more of the client.
    Fail {
        worker: WorkerId,
        refusal: Refusal,
    },
}

/// The verdict on what comes after its round has closed.
pub(in crate::round) fn late(round: RoundId) -> Refusal {
    Refusal::new(RefusalKind::Late, format!("round {round} has closed"))
}

/// The verdict on what comes from a worker that may not act for the client.
pub(in crate::round) fn not_leased(worker: WorkerId, client: ClientId) -> Refusal {
    let detail = format!("worker {worker} does not hold the lease of client {client}");
    Refusal::new(RefusalKind::NotLeased, detail)
}

/// The verdict on a report of which another worker's has been accepted.
pub(super) fn from_another(client: ClientId) -> Refusal {
    let detail = format!("the report of client {client} came from another worker");
    Refusal::new(RefusalKind::NotLeased, detail)
}

/// The verdict on what comes from a client outside of the cohort.
pub(super) fn not_in_cohort(client: ClientId, round: RoundId) -> Refusal {
    let detail = format!("client {client} is not in the cohort of round {round}");
    Refusal::new(RefusalKind::NotInCohort, detail)
}

/// The verdict on a report while another upload of it is under way.
pub(super) fn uploading_already(client: ClientId) -> Refusal {
    let detail = format!("the report of client {client} is being uploaded already");
    Refusal::new(RefusalKind::Duplicate, detail)
}

/// The verdict on an upload that another one has replaced.
pub(super) fn lost_lease(worker: WorkerId, client: ClientId) -> Refusal {
    let detail = format!("worker {worker} lost the lease of client {client} meanwhile");
    Refusal::new(RefusalKind::NotLeased, detail)
}

/// The verdict on a report that was trained from another version than the round's.
pub(super) fn stale(base: ModelVersion, version: ModelVersion) -> Refusal {
    let detail = format!("starts from version {base}, and the round from {version}");
    Refusal::new(RefusalKind::Stale, detail)
}

/// What is wrong with what a report says about itself, whatever the round.
pub(super) fn improper(
    client: ClientId,
    metadata: &ReportMetadata,
    partition: u64,
) -> Option<Refusal> {
    if metadata.examples == 0 || metadata.examples > partition {
        let detail = format!(
            "claims {} examples, and the partition of client {client} has {partition}",
            metadata.examples
        );
        return Some(Refusal::new(RefusalKind::ExamplesExceeded, detail));
    }
    metadata.check().err()
}
