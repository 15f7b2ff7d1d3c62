//! What a job leaves behind for people: a record per round, an event log, and summaries.

mod clients;
mod contribution;
mod record;
mod summary;

pub use clients::{ClientMetrics, ClientMetricsLimit, MeasuredClient};
pub use contribution::{Contribution, contributions};
pub use record::{RoundRecord, canonical, parse_rounds};
use serde::{Deserialize, Serialize};
pub use summary::{Health, JobSummary, WorkerSummary};

use crate::{ids::Timestamp, round::JobEvent};

/// An entry of a job's event log, with its place and time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
pub struct LoggedEvent {
    /// Its place in the log, from 1, without gaps.
    pub sequence: u64,
    /// When, in milliseconds since the Unix epoch.
    pub time: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub event: JobEvent,
}
