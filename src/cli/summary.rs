//! `summary.json`: a run on one page.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    ids::{JobId, ModelVersion},
    job::JobSpec,
    protocol::{JobSummary, RoundRecord},
    round::Outcome,
};

/// A run that has ended: what was asked for, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// The version of this crate.
    pub fedavg: String,
    /// The job's number.
    pub job: JobId,
    /// How it ended: `outcome` is completed, failed (with a `reason`) or cancelled.
    #[serde(flatten)]
    pub outcome: Option<Outcome>,
    /// What was asked for.
    pub spec: JobSpec,
    /// Number of clients.
    pub clients: Option<u32>,
    /// Number of parameters of the model.
    pub parameters: u64,
    /// The version of the final global model.
    pub version: ModelVersion,
    /// Rounds that made a version.
    pub rounds_committed: usize,
    /// Rounds that made none.
    pub rounds_abandoned: usize,
    /// The last version that was evaluated: what the figures below are of. Not the final one, if that could not be evaluated.
    #[serde(default)]
    pub test_version: Option<ModelVersion>,
    /// Mean loss on the test split, of the last version that was evaluated.
    pub test_loss: Option<f64>,
    /// Accuracy on the test split, of the last version that was evaluated, from 0 to 1.
    pub test_accuracy: Option<f64>,
    /// What else was measured on the test split, of the last version that was evaluated.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub test_metrics: BTreeMap<String, f64>,
    /// The highest accuracy of all versions.
    pub best_test_accuracy: Option<f64>,
    /// Seconds from submission to end, waiting included.
    pub seconds: f64,
    /// Bytes of parameters sent and received in all rounds.
    pub bytes: u64,
    /// Joules that the devices spent on the folded reports of all rounds, where they were measured; none where nobody
    /// measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy_joules: Option<f64>,
}

impl RunSummary {
    /// Of a job and the records of its rounds.
    pub fn new(job: &JobSummary, rounds: &[RoundRecord]) -> Self {
        let committed = rounds
            .iter()
            .filter(|record| record.version.is_some())
            .count();
        let evaluated = || rounds.iter().filter(|record| record.test_loss.is_some());
        let last = evaluated().next_back();
        Self {
            fedavg: env!("CARGO_PKG_VERSION").to_string(),
            job: job.job,
            outcome: job.outcome.clone(),
            spec: job.spec.clone(),
            clients: job.clients,
            parameters: job.parameters,
            version: job.version,
            rounds_committed: committed,
            rounds_abandoned: rounds.len() - committed,
            test_version: last.and_then(|record| record.version),
            test_loss: last.and_then(|record| record.test_loss),
            test_accuracy: last.and_then(|record| record.test_accuracy),
            test_metrics: last.map_or(BTreeMap::new(), |record| record.test_metrics.clone()),
            best_test_accuracy: evaluated()
                .filter_map(|record| record.test_accuracy)
                .max_by(f64::total_cmp),
            seconds: job
                .ended
                .map_or(0.0, |ended| ended.since(job.submitted).as_secs_f64()),
            bytes: rounds.iter().map(|record| record.bytes).sum(),
            energy_joules: rounds
                .iter()
                .filter_map(|record| record.energy_joules)
                .reduce(|sum, joules| sum + joules),
        }
    }
}
