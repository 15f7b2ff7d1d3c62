//! `summary.json`: a run on one page.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    attack::AttackSummary,
    values::{now, number},
};
use crate::{
    ids::{JobId, ModelVersion},
    job::JobSpec,
    parameters::Digest,
    protocol::{JobSummary, RoundRecord},
    round::{BestVersion, MeasuredVersion, Outcome},
    words::IF_IT_DIVERGES,
};

/// A run that has ended: what was asked for, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// The version of this crate.
    pub fedavg: String,
    /// The job's number.
    pub job: JobId,
    /// How it ended: `outcome` is completed, stopped (with a `rule` and a `reason`), failed (with a `reason`) or cancelled.
    #[serde(flatten)]
    pub outcome: Option<Outcome>,
    /// What was asked for.
    pub spec: JobSpec,
    /// Number of clients.
    pub clients: Option<u32>,
    /// Number of parameters of the model.
    pub parameters: u64,
    /// The CRC-32 of the initial model's values: a run is repeated from the same. None in files of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_digest: Option<Digest>,
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
    /// The attack of a simulation that had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attack: Option<AttackSummary>,
    /// What an operator should know before the result is used: that training diverged, for example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// The best version, with the metric that decides; none if nothing was measured. If it is not the final one, its model is
    /// `best.safetensors`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<BestVersion>,
    /// The latest version that was measured, on each split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_measured: Option<MeasuredVersion>,
    /// The highest accuracy of all versions.
    pub best_test_accuracy: Option<f64>,
    /// Seconds from submission to end, waiting included; of a job that goes on, to now.
    pub seconds: f64,
    /// Bytes of parameters sent and received in all rounds.
    pub bytes: u64,
    /// Joules that the devices spent on the folded reports of all rounds, if they were measured; none if nobody
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
        let last = rounds.iter().rfind(|record| record.test_loss.is_some());
        // Of a job without rounds, or one that a rule ended between two evaluations, no record has it.
        let beside = job.last_measured.as_ref();
        let beside = beside.filter(|measured| {
            measured.test.is_some()
                && last.and_then(|record| record.version) != Some(measured.version)
        });
        let mut summary = Self {
            fedavg: env!("CARGO_PKG_VERSION").to_string(),
            job: job.job,
            outcome: job.outcome.clone(),
            spec: job.spec.clone(),
            clients: job.clients,
            parameters: job.parameters,
            initial_digest: job.initial_digest,
            version: job.version,
            rounds_committed: committed,
            rounds_abandoned: rounds.len() - committed,
            test_version: last.and_then(|record| record.version),
            test_loss: last.and_then(|record| record.test_loss),
            test_accuracy: last.and_then(|record| record.test_accuracy),
            test_metrics: last.map_or(BTreeMap::new(), |record| record.test_metrics.clone()),
            attack: None,
            warning: divergence(
                rounds.iter().filter_map(|record| record.train_loss),
                rounds.iter().filter_map(|record| record.test_loss),
            ),
            best: job.best.clone(),
            last_measured: job.last_measured.clone(),
            best_test_accuracy: rounds
                .iter()
                .filter_map(|record| record.test_accuracy)
                .max_by(f64::total_cmp),
            seconds: job
                .ended
                .unwrap_or_else(now)
                .since(job.submitted)
                .as_secs_f64(),
            bytes: rounds.iter().map(|record| record.bytes).sum(),
            energy_joules: rounds
                .iter()
                .filter_map(|record| record.energy_joules)
                // `sum` would make 0 J of a run that nobody measured.
                .reduce(|sum, joules| sum + joules),
        };
        if let Some(measured) = beside
            && let Some(test) = &measured.test
        {
            summary.test_version = Some(measured.version);
            summary.test_loss = Some(test.loss);
            summary.test_accuracy = test.accuracy;
            summary.test_metrics.clone_from(&test.metrics);
        }
        summary
    }
}

/// How many times its first value a training loss may have before it counts as diverging.
const DIVERGED: f64 = 10.0;

/// A mean loss that no training that learns has, whatever the loss.
const ABSURD: f64 = 1e12;

/// A warning if the last training loss is far above the first, or any loss beyond all reason. Clients that attack may report no
/// training loss, and then only the test losses show it.
pub(super) fn divergence(
    training: impl Iterator<Item = f64>,
    test: impl Iterator<Item = f64>,
) -> Option<String> {
    let training: Vec<f64> = training.collect();
    let what = grown(&training)
        .or_else(|| absurd("training", training.iter().copied()))
        .or_else(|| absurd("test", test))?;
    Some(format!("training diverges: {what}; {IF_IT_DIVERGES}"))
}

fn absurd(which: &str, losses: impl Iterator<Item = f64>) -> Option<String> {
    let largest = losses.fold(f64::MIN, f64::max);
    (largest > ABSURD).then(|| format!("the {which} loss reached {}", number(largest)))
}

fn grown(losses: &[f64]) -> Option<String> {
    let (first, last) = (*losses.first()?, *losses.last()?);
    // Losses may be below zero, and then have no such measure.
    let has_grown = first > 0.0 && last > first * DIVERGED;
    has_grown.then(|| {
        format!(
            "the training loss went from {} to {}",
            number(first),
            number(last)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{RoundId, Timestamp};

    #[test]
    fn a_job_that_goes_on_has_taken_the_time_since_its_submission() {
        let mut job = JobSummary {
            job: JobId(1),
            spec: JobSpec::default(),
            phase: "collecting".to_string(),
            detail: String::new(),
            outcome: None,
            clients: Some(2),
            round: RoundId(1),
            version: ModelVersion(0),
            accepted: 0,
            goal: 2,
            parameters: 2,
            continued: None,
            best: None,
            last_measured: None,
            initial_digest: None,
            last_event: 0,
            submitted: Timestamp(now().0 - 60_000),
            ended: None,
        };
        assert!(RunSummary::new(&job, &[]).seconds >= 60.0);
        job.ended = Some(Timestamp(job.submitted.0 + 1500));
        assert_eq!(RunSummary::new(&job, &[]).seconds, 1.5);
    }

    #[test]
    fn a_loss_that_grows_tenfold_is_a_warning() {
        let of = |losses: &[f64]| divergence(losses.iter().copied(), [2.3].into_iter());
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[2.3]), None);
        assert_eq!(of(&[2.3, 9.0, 1.0]), None);
        assert_eq!(of(&[-1.0, 5.0]), None);
        let warning = of(&[2.3, 1.0, 25.0]).unwrap();
        assert!(warning.contains("from 2.3000 to 25.0000"), "{warning}");
        let warning = of(&[3.07e27, 80.0]).unwrap();
        assert!(
            warning.contains("training loss reached 3.07e27"),
            "{warning}"
        );
        // No training loss: attackers that train nothing report none.
        let warning = divergence([].into_iter(), [2.3, 9e13].into_iter()).unwrap();
        assert!(warning.contains("test loss reached 9"), "{warning}");
        for remedy in ["--lr", "server_lr", "--strategy multi_krum"] {
            assert!(warning.contains(remedy), "{warning}");
        }
    }
}
