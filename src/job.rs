//! What an operator may ask for: the specification of a job. It must never ask a coordinator, a clock or a file.

mod continues;
mod description;
mod encodings;
mod error;
mod free_settings;
mod strategy;
mod tensors;
mod validate;
mod validation;

pub use continues::{ContinuedVersion, Continues};
pub use description::JobDescription;
pub use encodings::Encodings;
use encodings::StrictEncodings;
pub use error::JobError;
pub use free_settings::Settings;
use serde::{Deserialize, Serialize};
pub use strategy::StrategySpec;

pub use crate::partition::ValidationSplit;
pub use crate::settings::{
    Augment, BestSettings, Direction, EvalSplit, InnerState, Metric, Normalize, OptimizerKind,
    RoundLimits, Schedule, StopSettings, TrainingSettings,
};

use crate::{
    ids::ModelVersion,
    partition::PartitionSpec,
    settings::{EvaluationPlan, StrictTrainingSettings},
};

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
/// [schedule]
/// kind = "cosine"
/// warmup = 2
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
    /// Number of rounds to commit. 0: nothing is trained, and the initial model is evaluated.
    pub rounds: u32,
    /// The number of the first round, at least 1. A job that goes on from the model of another one, with the same seed, takes
    /// the number after the other's last round: it then draws the cohorts and shuffles that the other would have drawn.
    #[serde(skip_serializing_if = "is_one")]
    #[cfg_attr(feature = "http", schema(minimum = 1))]
    pub first_round: u32,
    /// The job that this one goes on from. Left out if it begins with an initial model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub continues: Option<Continues>,
    /// How much the job counts beside others that run at the same time, from 1 to 100: of two jobs that both have work for
    /// all workers, one with twice the priority gets twice as many tasks done. Jobs that wait start by priority. No result
    /// depends on it. Left out if it is 1.
    #[serde(skip_serializing_if = "is_one")]
    #[cfg_attr(feature = "http", schema(minimum = 1, maximum = 100))]
    pub priority: u32,
    /// Seeds every random draw of the job. A language whose numbers are doubles reads it exactly up to 2^53.
    pub seed: u64,
    /// How clients train.
    #[serde(deserialize_with = "StrictTrainingSettings::deserialize")]
    pub training: TrainingSettings,
    /// How the learning rate changes with the rounds. Left out if it does not.
    #[serde(skip_serializing_if = "Schedule::is_constant")]
    pub schedule: Schedule,
    /// The algorithm.
    #[cfg_attr(feature = "http", schema(value_type = strategy::StrategySpelling))]
    pub strategy: StrategySpec,
    /// Who evaluates the global model.
    pub evaluation: EvaluationMode,
    /// The share of the training examples, above 0 and below 1, that nobody trains on and that versions are evaluated on: the
    /// test split is then for the job's end. Drawn from the seed; of workers' own data, each keeps this share. Left out if it is
    /// 0: versions are evaluated on the test split.
    #[serde(skip_serializing_if = "is_zero")]
    #[cfg_attr(feature = "http", schema(minimum = 0))]
    pub validation: f64,
    /// Each version whose number can be divided by this is evaluated, and the final one. Left out if it is 1.
    #[serde(skip_serializing_if = "is_one")]
    #[cfg_attr(feature = "http", schema(minimum = 1))]
    pub evaluate_every: u32,
    /// Which version is the best one. It is kept beside the final one. Left out if nothing is said.
    #[serde(skip_serializing_if = "BestSettings::is_default")]
    pub best: BestSettings,
    /// When the job ends before its last round. Left out if nothing is said: then it trains all rounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<StopSettings>,
    /// When rounds begin and end.
    pub limits: RoundLimits,
    /// How reports and models travel.
    #[serde(deserialize_with = "StrictEncodings::deserialize")]
    pub encoding: Encodings,
    /// The tensors that each client trains and keeps for itself: they never leave its worker, and are never averaged. Names in
    /// which `*` stands for any text, such as `head.*`; buffers count, too. Left out if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub personal: Vec<String>,
    /// The tensors that nobody trains: they stay as the initial model has them. Names in which `*` stands for any text, such as
    /// `body.*`. Left out if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub frozen: Vec<String>,
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
            continues: None,
            priority: 1,
            seed: 1337,
            training: TrainingSettings::default(),
            schedule: Schedule::default(),
            strategy: StrategySpec::default(),
            evaluation: EvaluationMode::default(),
            validation: 0.0,
            evaluate_every: 1,
            best: BestSettings::default(),
            stop: None,
            limits: RoundLimits::default(),
            encoding: Encodings::default(),
            personal: Vec::new(),
            frozen: Vec::new(),
            settings: Settings::new(),
        }
    }
}

fn is_one(number: &u32) -> bool {
    *number == 1
}

fn is_zero(number: &f64) -> bool {
    *number == 0.0
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

    /// Whether a part of the training split is kept for validation.
    pub fn has_validation(&self) -> bool {
        self.validation > 0.0
    }

    /// On what versions are evaluated, and how often.
    pub fn evaluation_plan(&self) -> EvaluationPlan {
        EvaluationPlan {
            validation: self.has_validation(),
            every: self.evaluate_every,
        }
    }

    /// How clients train in a round that starts from this version of the job's model: the schedule's learning rate, and
    /// else `training`.
    pub fn training_at(&self, version: ModelVersion) -> TrainingSettings {
        let mut training = self.training.clone();
        training.lr = self.schedule.lr_at(version.0, self.rounds, training.lr);
        training
    }
}

/// Who evaluates the global model on the test split: `auto` is the coordinator if it has the data, else the workers, and always the
/// workers if the job has personal tensors;
/// `coordinator` is a job that is refused if the coordinator lacks the data; of `workers`, each client evaluates its share;
/// `never`: no evaluation.
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
    /// No evaluation.
    Never,
}

#[cfg(test)]
mod tests;
