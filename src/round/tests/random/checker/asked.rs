//! What was asked of the machine.

use crate::{
    ids::{ClientId, ModelVersion, RequestId, RoundId, WorkerId},
    report::ReportMetadata,
    round::Task,
};

/// What was asked, until it is answered.
#[derive(Debug, Clone)]
pub enum Asked {
    Task { worker: WorkerId, busy: Vec<Task> },
    Offer(Offered),
    Stored { upload: RequestId, is_ok: bool },
    Other,
    Cancel,
}

/// A report as its worker would send it again.
#[derive(Debug, Clone)]
pub struct Offered {
    pub worker: WorkerId,
    pub client: ClientId,
    pub round: RoundId,
    pub metadata: ReportMetadata,
}

/// What makes two offers the same: worker, client, round, version, examples, and whether its metrics are numbers.
pub type Key = (WorkerId, ClientId, RoundId, ModelVersion, u64, bool);

impl Offered {
    pub fn has_numbers(&self) -> bool {
        self.metadata
            .metrics
            .values()
            .all(|value| value.is_finite())
    }

    pub fn key(&self) -> Key {
        let metadata = &self.metadata;
        let numbers = self.has_numbers();
        (
            self.worker,
            self.client,
            self.round,
            metadata.base_version,
            metadata.examples,
            numbers,
        )
    }
}
