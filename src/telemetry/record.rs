//! A round's record, and the comparison of two runs' event logs.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Contribution, LoggedEvent, contribution::sum};
use crate::{
    ids::{ClientId, ModelVersion, RoundId},
    round::JobEvent,
};

/// One line of `rounds.jsonl`: a round that ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
pub struct RoundRecord {
    /// The round.
    pub round: RoundId,
    /// The version that it made; none where it was abandoned.
    pub version: Option<ModelVersion>,
    /// Why it was abandoned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abandoned: Option<String>,
    /// Mean loss of that version on the test split; none before it is evaluated.
    pub test_loss: Option<f64>,
    /// Accuracy of that version on the test split, from 0 to 1.
    pub test_accuracy: Option<f64>,
    /// The clients' weighted mean loss while they trained.
    pub train_loss: Option<f64>,
    /// Seconds from the round's beginning to its end, without the evaluation of what it made.
    pub seconds: f64,
    /// Bytes of parameters that were sent and received for it.
    pub bytes: u64,
    /// The clients that were folded, in order.
    pub clients: Vec<ClientId>,
    /// Who trained on what, by worker and device; empty where the round was abandoned.
    #[serde(default)]
    pub contributions: Vec<Contribution>,
    /// Joules that the devices spent on the folded reports, where they were measured: at least this much was spent. None
    /// where no device was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy_joules: Option<f64>,
}

impl RoundRecord {
    /// Notes who trained on what.
    pub fn with_contributions(mut self, contributions: Vec<Contribution>) -> Self {
        self.energy_joules = sum(contributions.iter().map(|part| part.energy_joules));
        self.contributions = contributions;
        self
    }

    /// The round's length.
    pub fn duration(&self) -> Duration {
        Duration::try_from_secs_f64(self.seconds).unwrap_or_default()
    }
}

/// The records of a `rounds.jsonl`.
///
/// # Errors
///
/// The number of the line that is not a record, and why.
pub fn parse_rounds(text: &str) -> Result<Vec<RoundRecord>, (usize, String)> {
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            serde_json::from_str(line).map_err(|error| (index + 1, error.to_string()))
        })
        .collect()
}

/// What two runs of the same job must agree on, whatever their workers, threads and transports: the log without times
/// and without what depends on who was quicker. Within a round, acceptances are in client order; evaluations,
/// which may run beside the next round, stand at the end.
pub fn canonical(log: &[LoggedEvent]) -> Vec<JobEvent> {
    let mut events: Vec<JobEvent> = Vec::new();
    let mut evaluations: Vec<JobEvent> = Vec::new();
    for LoggedEvent { event, .. } in log {
        match event {
            JobEvent::Waiting { .. } | JobEvent::Leased { .. } | JobEvent::TaskIssued { .. } => {}
            JobEvent::ReportAccepted {
                round,
                client,
                examples,
                ..
            } => events.push(JobEvent::ReportAccepted {
                round: *round,
                client: *client,
                worker: Default::default(),
                examples: *examples,
            }),
            JobEvent::Evaluated { .. } => evaluations.push(event.clone()),
            _ => events.push(event.clone()),
        }
    }
    let is_acceptance = |event: &JobEvent| matches!(event, JobEvent::ReportAccepted { .. });
    for stretch in events.chunk_by_mut(|a, b| is_acceptance(a) && is_acceptance(b)) {
        stretch.sort_by_key(|event| match event {
            JobEvent::ReportAccepted { client, .. } => *client,
            _ => ClientId(0),
        });
    }
    evaluations.sort_by_key(|event| match event {
        JobEvent::Evaluated { version, .. } => *version,
        _ => ModelVersion(0),
    });
    events.extend(evaluations);
    events
}
