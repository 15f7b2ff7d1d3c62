//! What came of a round, and what happened in a job.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    ids::{ClientId, ModelVersion, RoundId, Timestamp, WorkerId},
    round::{ClientEvaluation, Evaluation, Excluded, JobEvent},
    settings::EvalSplit,
};

/// One line of `rounds.jsonl`: a round that ended.
///
/// Of what can be missing, `abandoned` tells whether the round made a version. Lines of earlier versions of `fedavg`,
/// which have `clients` instead of `accepted` and `folded`, are read as rounds without exclusions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
// Makes the derived code inherent methods, so that the traits below can repair old lines around it.
#[serde(remote = "Self")]
#[non_exhaustive]
pub struct RoundRecord {
    /// The round.
    pub round: RoundId,
    /// The version that it made; none if it was abandoned.
    pub version: Option<ModelVersion>,
    /// Why it was abandoned; none if it made a version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abandoned: Option<String>,
    /// Mean loss of that version on the test split; none before it is evaluated.
    pub test_loss: Option<f64>,
    /// Accuracy of that version on the test split, from 0 to 1; none before it is evaluated, or if nobody measures it.
    #[cfg_attr(feature = "http", schema(minimum = 0, maximum = 1))]
    pub test_accuracy: Option<f64>,
    /// What else was measured of that version on the test split.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub test_metrics: BTreeMap<String, f64>,
    /// Mean loss of that version on the validation split; none if it was not evaluated there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_loss: Option<f64>,
    /// Accuracy of that version on the validation split, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "http", schema(minimum = 0, maximum = 1))]
    pub validation_accuracy: Option<f64>,
    /// What else was measured of that version on the validation split.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub validation_metrics: BTreeMap<String, f64>,
    /// What each client measured of that version on data of its own, in order; left out if the workers have no data of their own.
    /// At most 1000 clients: the first ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub test_by_client: Vec<ClientEvaluation>,
    /// The same on the part of its data that it keeps for validation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub validation_by_client: Vec<ClientEvaluation>,
    /// Mean loss of the folded clients while they trained, weighted by examples; none unless each of them measured it.
    pub train_loss: Option<f64>,
    /// The learning rate that the round was planned with: the job's, as its schedule changes it. None if the round was abandoned, and
    /// in records of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// Seconds from the round's beginning to its end, without the evaluation of what it made.
    pub seconds: f64,
    /// Bytes of parameters that were sent and received for it.
    pub bytes: u64,
    /// The clients whose reports were accepted, in order.
    #[serde(default)]
    pub accepted: Vec<ClientId>,
    /// The clients whose reports are in the version, in order.
    #[serde(default, alias = "clients")]
    pub folded: Vec<ClientId>,
    /// The clients whose accepted reports the strategy left out, in order, each with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded: Vec<Excluded>,
    /// What accepted reports said and does not count, in order of clients, each with the reason: a training time that is longer than
    /// the worker had the task, a metric that is far from the others'. At most 1000 entries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_counted: Vec<Excluded>,
    /// What the strategy measured while it aggregated.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
    /// The mean of each of the folded clients' own metrics, over those that have it, weighted by their examples. If a
    /// limit cuts, the metrics that the most clients have are kept.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub client_metrics: BTreeMap<String, f64>,
    /// How many more metrics have no mean here.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub client_metrics_left_out: u64,
    /// What the folded clients measured, one by one, in order. If a limit cuts, the first clients are kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_client: Vec<MeasuredClient>,
    /// How many more clients are not listed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub clients_left_out: u64,
    /// The clients that started from their initial state, since their worker did not have the state that their task named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub state_lost: Vec<ClientId>,
    /// Who trained on what, by worker and device; empty if the round was abandoned.
    #[serde(default)]
    pub contributions: Vec<Contribution>,
    /// Joules that the devices spent on the folded reports, as far as they were measured: at least this much was spent.
    /// None if no device was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy_joules: Option<f64>,
}

impl Serialize for RoundRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The inherent method, which the derive makes for `remote`.
        RoundRecord::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for RoundRecord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut record = RoundRecord::deserialize(deserializer)?;
        if record.accepted.is_empty() {
            // An old line: without exclusions, what was folded is what was accepted.
            record.accepted.clone_from(&record.folded);
        }
        Ok(record)
    }
}

impl RoundRecord {
    /// A round that made this version.
    pub fn committed(round: RoundId, version: ModelVersion) -> Self {
        Self {
            round,
            version: Some(version),
            ..Self::default()
        }
    }

    /// A round that made no version, and why.
    pub fn abandoned(round: RoundId, reason: impl Into<String>) -> Self {
        Self {
            round,
            abandoned: Some(reason.into()),
            ..Self::default()
        }
    }

    /// Takes what was measured of its version on a split.
    pub(crate) fn set_evaluation(
        &mut self,
        split: EvalSplit,
        evaluation: &Evaluation,
        by_client: &[ClientEvaluation],
    ) {
        let (loss, accuracy) = (Some(evaluation.loss), evaluation.accuracy);
        let (metrics, by_client) = (evaluation.metrics.clone(), by_client.to_vec());
        match split {
            EvalSplit::Test => {
                (self.test_loss, self.test_accuracy) = (loss, accuracy);
                (self.test_metrics, self.test_by_client) = (metrics, by_client);
            }
            EvalSplit::Validation => {
                (self.validation_loss, self.validation_accuracy) = (loss, accuracy);
                (self.validation_metrics, self.validation_by_client) = (metrics, by_client);
            }
        }
    }

    /// The same with who trained on what.
    pub fn with_contributions(mut self, contributions: Vec<Contribution>) -> Self {
        let measured = contributions.iter().filter_map(|part| part.energy_joules);
        self.energy_joules = measured.reduce(|sum, joules| sum + joules);
        self.contributions = contributions;
        self
    }

    /// The round's length.
    pub fn duration(&self) -> Duration {
        Duration::try_from_secs_f64(self.seconds).unwrap_or_default()
    }
}

/// What one client measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct MeasuredClient {
    /// The client.
    pub client: ClientId,
    /// Number of examples that it trained on.
    pub examples: u64,
    /// What it measured, by name. If a limit cuts, the first names are kept.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
    /// How many more metrics it reported.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub metrics_left_out: u64,
}

/// What one device of one worker did in a round that was committed.
///
/// There is one for each worker and device, however many clients they trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct Contribution {
    /// The worker.
    pub worker: WorkerId,
    /// Its name.
    pub name: String,
    /// What trained, such as `flex` or `libtorch:cuda:0`; none if the reports do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The clients whose reports were folded, in order.
    pub clients: Vec<ClientId>,
    /// Number of examples in their partitions, added up.
    pub examples: u64,
    /// Seconds that the local trainings took, added up: two that run beside each other for a second are two seconds.
    /// So `examples` times the local epochs by `seconds` is the speed of one slot. None if no report says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Joules that the device spent on them, added up over those that measured; none if none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy_joules: Option<f64>,
}

/// An entry of a job's event log, with its place and time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct LoggedEvent {
    /// Its place in the log, from 1, without gaps.
    #[cfg_attr(feature = "http", schema(minimum = 1))]
    pub sequence: u64,
    /// When, in milliseconds since the Unix epoch.
    pub time: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub event: JobEvent,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}
