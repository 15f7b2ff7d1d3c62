//! What an operator may ask for: the specification of a job, with its validation.

mod description;

use std::sync::Arc;

pub use description::JobDescription;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use crate::settings::{OptimizerKind, RoundLimits, TrainingSettings};

use crate::{
    parameters::Encoding,
    partition::PartitionSpec,
    settings::StrictTrainingSettings,
    strategy::{FedAvg, FederatedStrategy, UniformSampler, Weighting},
};

/// Free-form settings: names with JSON values, which whoever they are for reads.
pub type Settings = serde_json::Map<String, serde_json::Value>;

/// The most that settings may have, in bytes as JSON.
const MOST_SETTINGS: usize = 64 << 10;

/// One training run. Every field has a default, so `{}` is a job: `mlp` on `digits`.
///
/// In TOML:
///
/// ```toml
/// model = "cifar_cnn"
/// dataset = "cifar10"
/// rounds = 20
///
/// [partition]
/// kind = "dirichlet"
/// alpha = 0.5
///
/// [training]
/// local_epochs = 1
/// lr = 0.01
///
/// [settings] # for the trainer: whatever it understands
/// hidden = [64, 32]
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct JobSpec {
    /// The name of a model that the coordinator and the workers have a factory for.
    pub model: String,
    /// The name of the dataset: `digits`, `cifar10`, `folder:NAME` or one that an embedder registered.
    pub dataset: String,
    /// Number of clients. Without it: as many as there are workers when the job starts.
    #[cfg_attr(feature = "http", schema(minimum = 1))]
    pub clients: Option<u32>,
    /// How the examples are dealt over the clients.
    #[cfg_attr(feature = "http", schema(value_type = crate::partition::PartitionSpelling))]
    pub partition: PartitionSpec,
    /// Number of rounds to commit.
    #[cfg_attr(feature = "http", schema(minimum = 1))]
    pub rounds: u32,
    /// The number of the first round, at least 1. A job that goes on from the model of another one, with the same seed, takes
    /// the number after the other's last round: it then draws the cohorts and shuffles that the other would have drawn.
    #[serde(skip_serializing_if = "is_one")]
    #[cfg_attr(feature = "http", schema(minimum = 1))]
    pub first_round: u32,
    /// Seeds every random draw of the job. A language whose numbers are doubles reads it exactly up to 2^53.
    pub seed: u64,
    /// How clients train.
    #[serde(deserialize_with = "StrictTrainingSettings::deserialize")]
    pub training: TrainingSettings,
    /// The algorithm.
    pub strategy: StrategySpec,
    /// Who evaluates the global model.
    pub evaluation: EvaluationMode,
    /// When rounds begin and end.
    pub limits: RoundLimits,
    /// How reports and models travel.
    #[serde(deserialize_with = "StrictEncodings::deserialize")]
    pub encoding: Encodings,
    /// Settings for the trainers, which get them as they are; at most 64 KiB as JSON. Left out if there are none.
    #[serde(skip_serializing_if = "Settings::is_empty")]
    #[cfg_attr(feature = "http", schema(value_type = Object))]
    pub settings: Settings,
}

impl Default for JobSpec {
    fn default() -> Self {
        Self {
            model: "mlp".to_string(),
            dataset: "digits".to_string(),
            clients: None,
            partition: PartitionSpec::Iid,
            rounds: 20,
            first_round: 1,
            seed: 1337,
            training: TrainingSettings::default(),
            strategy: StrategySpec::default(),
            evaluation: EvaluationMode::default(),
            limits: RoundLimits::default(),
            encoding: Encodings::default(),
            settings: Settings::new(),
        }
    }
}

fn is_one(number: &u32) -> bool {
    *number == 1
}

impl JobSpec {
    /// A job of this model on this dataset, with defaults for all else. The public fields change that.
    pub fn new(model: impl Into<String>, dataset: impl Into<String>) -> Self {
        Self {
            model: model.into(),
            dataset: dataset.into(),
            ..Self::default()
        }
    }
}

/// The algorithm of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum StrategySpec {
    /// Federated averaging.
    #[serde(rename = "fedavg")]
    FedAvg {
        /// The share of the clients whose reports a round waits for, above 0 and at most 1.
        #[serde(default = "one")]
        #[cfg_attr(
            feature = "http",
            schema(exclusive_minimum = 0, maximum = 1, default = 1.0)
        )]
        fraction: f64,
        /// How many more clients than the goal are chosen, as a share of the goal.
        #[serde(default)]
        #[cfg_attr(feature = "http", schema(minimum = 0, default = 0.0))]
        over_selection: f64,
        /// How much each report counts.
        #[serde(default)]
        weighting: Weighting,
    },
    /// A strategy that an embedder registered with the coordinator under this name.
    Custom {
        /// The name.
        name: String,
        /// Settings that the strategy reads; at most 64 KiB as JSON. Left out if there are none.
        #[serde(default, skip_serializing_if = "Settings::is_empty")]
        #[cfg_attr(feature = "http", schema(value_type = Object))]
        settings: Settings,
    },
}

fn one() -> f64 {
    1.0
}

impl Default for StrategySpec {
    fn default() -> Self {
        Self::FedAvg {
            fraction: 1.0,
            over_selection: 0.0,
            weighting: Weighting::Examples,
        }
    }
}

impl StrategySpec {
    /// A strategy that an embedder registered under this name, with these settings.
    pub fn custom(name: impl Into<String>, settings: Settings) -> Self {
        let name = name.into();
        Self::Custom { name, settings }
    }

    /// The strategy, if it is one of this crate's; `None` for an embedder's own.
    pub fn build(&self) -> Option<Arc<dyn FederatedStrategy>> {
        match *self {
            Self::FedAvg {
                fraction,
                over_selection,
                weighting,
            } => {
                let sampler = UniformSampler {
                    fraction,
                    over_selection,
                };
                Some(Arc::new(FedAvg::new(sampler, weighting)))
            }
            Self::Custom { .. } => None,
        }
    }
}

/// Who evaluates the global model on the test split: `auto` is the coordinator if it has the data, else the workers;
/// `coordinator` is a job that is refused if the coordinator lacks the data; of `workers`, each client evaluates its share;
/// `never` is nobody.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EvaluationMode {
    /// The coordinator if it has the data, else the workers.
    #[default]
    Auto,
    /// The coordinator; a job is refused if it lacks the data.
    Coordinator,
    /// The workers: each client evaluates its share of the test split, weighted by examples.
    Workers,
    /// Nobody.
    Never,
}

/// How parameters travel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(default)]
#[non_exhaustive]
pub struct Encodings {
    /// The deltas in reports.
    pub reports: Encoding,
    /// The global models that workers download; `top_k` is for reports alone. The coordinator's own model stays f32.
    pub models: Encoding,
}

/// [`Encodings`] in a job, if a field that is not known is misspelt.
#[derive(Deserialize)]
#[serde(
    remote = "Encodings",
    default = "Encodings::default",
    deny_unknown_fields
)]
struct StrictEncodings {
    reports: Encoding,
    models: Encoding,
}

impl JobSpec {
    /// Checks what can be checked without a coordinator: every number in its range, and limits that fit each other.
    ///
    /// # Errors
    ///
    /// [`JobError`] names the field.
    pub fn validate(&self) -> Result<(), JobError> {
        let at_least_one = |field, value: u64| match value {
            0 => Err(JobError::new(field, "must be at least 1")),
            _ => Ok(()),
        };
        at_least_one("rounds", self.rounds.into())?;
        at_least_one("first_round", self.first_round.into())?;
        at_least_one("clients", self.clients.unwrap_or(1).into())?;
        at_least_one("training.local_epochs", self.training.local_epochs.into())?;
        at_least_one("training.batch_size", self.training.batch_size.into())?;
        at_least_one("limits.round_timeout", self.limits.round_timeout)?;
        at_least_one("limits.min_updates", self.limits.min_updates.into())?;
        at_least_one("limits.goal", self.limits.goal.unwrap_or(1).into())?;
        at_least_one("limits.max_attempts", self.limits.max_attempts.into())?;
        at_least_one("limits.min_workers", self.limits.min_workers.into())?;
        at_least_one("limits.start_timeout", self.limits.start_timeout)?;
        at_least_one("limits.evaluation_timeout", self.limits.evaluation_timeout)?;
        let not_negative = |field, value: f64| {
            if value.is_finite() && value >= 0.0 {
                Ok(())
            } else {
                Err(JobError::new(
                    field,
                    "must be a finite number of at least 0",
                ))
            }
        };
        not_negative("training.lr", self.training.lr)?;
        not_negative("training.momentum", self.training.momentum)?;
        not_negative("training.weight_decay", self.training.weight_decay)?;
        if let StrategySpec::FedAvg {
            fraction,
            over_selection,
            ..
        } = self.strategy
        {
            not_negative("strategy.over_selection", over_selection)?;
            if !(fraction > 0.0 && fraction <= 1.0) {
                return Err(JobError::new(
                    "strategy.fraction",
                    "must be above 0 and at most 1",
                ));
            }
        }
        check_size("settings", &self.settings)?;
        if let StrategySpec::Custom { settings, .. } = &self.strategy {
            check_size("strategy.settings", settings)?;
        }
        if !self.encoding.models.is_dense() {
            return Err(JobError::new(
                "encoding.models",
                "can't be top_k, which is for reports alone",
            ));
        }
        let quorum = self.limits.min_updates;
        if self.limits.goal.is_some_and(|goal| goal < quorum) {
            return Err(JobError::new("limits.goal", "is below limits.min_updates"));
        }
        if self
            .clients
            .is_some_and(|clients| clients < quorum.max(self.limits.goal.unwrap_or(0)))
        {
            return Err(JobError::new(
                "clients",
                "are fewer than limits.min_updates or limits.goal",
            ));
        }
        Ok(())
    }
}

fn check_size(field: &'static str, settings: &Settings) -> Result<(), JobError> {
    let text = serde_json::to_string(settings)
        .map_err(|error| JobError::new(field, format!("can't be written as JSON: {error}")))?;
    if text.len() > MOST_SETTINGS {
        let problem = format!(
            "has {} bytes as JSON, and {MOST_SETTINGS} is the most",
            text.len()
        );
        return Err(JobError::new(field, problem));
    }
    Ok(())
}

/// What is wrong with a job's specification.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field} {problem}")]
pub struct JobError {
    /// The field, as in TOML: `training.lr`.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

impl JobError {
    /// A problem of a field.
    pub fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self {
            field,
            problem: problem.into(),
        }
    }
}

#[cfg(test)]
mod tests;
