//! What an operator can set for local training and for rounds. A job has them; strategies and the round machine use them.

use serde::{Deserialize, Serialize};

/// How a client trains in a round. Fields that are not known are passed over, since a newer coordinator may send them;
/// in a job they are an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(default)]
#[non_exhaustive]
pub struct TrainingSettings {
    /// Passes over the partition.
    #[cfg_attr(feature = "http", schema(minimum = 1))]
    pub local_epochs: u32,
    /// Examples per optimizer step; the last batch of a pass may be smaller.
    #[cfg_attr(feature = "http", schema(minimum = 1))]
    pub batch_size: u32,
    /// The local optimizer, new in each round.
    pub optimizer: OptimizerKind,
    /// Learning rate.
    #[cfg_attr(feature = "http", schema(minimum = 0))]
    pub lr: f64,
    /// Momentum of SGD; without dampening, not Nesterov's.
    #[cfg_attr(feature = "http", schema(minimum = 0))]
    pub momentum: f64,
    /// L2 penalty, added to the gradient as PyTorch does.
    #[cfg_attr(feature = "http", schema(minimum = 0))]
    pub weight_decay: f64,
    /// Flip and padded crop of the training images.
    pub augment: bool,
}

impl Default for TrainingSettings {
    fn default() -> Self {
        Self {
            local_epochs: 1,
            batch_size: 64,
            optimizer: OptimizerKind::Sgd,
            lr: 0.01,
            momentum: 0.9,
            weight_decay: 1e-4,
            augment: false,
        }
    }
}

impl TrainingSettings {
    /// What a worker must say that it can do, for each setting that earlier workers do not know and that is not at its
    /// default: `training:NAME`, or `optimizer:NAME`.
    pub fn capabilities(&self) -> Vec<&'static str> {
        Vec::new()
    }
}

/// [`TrainingSettings`] in a job, if a field that is not known is misspelt.
#[derive(Deserialize)]
#[serde(
    remote = "TrainingSettings",
    default = "TrainingSettings::default",
    deny_unknown_fields
)]
pub(crate) struct StrictTrainingSettings {
    local_epochs: u32,
    batch_size: u32,
    optimizer: OptimizerKind,
    lr: f64,
    momentum: f64,
    weight_decay: f64,
    augment: bool,
}

/// A local optimizer, as PyTorch defines it: `sgd` has momentum, and `adam` betas 0.9 and 0.999 and an eps of 1e-8.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OptimizerKind {
    /// `torch.optim.SGD(lr, momentum, weight_decay)`.
    #[default]
    Sgd,
    /// `torch.optim.Adam(lr, betas=(0.9, 0.999), eps=1e-8, weight_decay)`.
    Adam,
}

/// When rounds begin and end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RoundLimits {
    /// Seconds from a round's beginning to its deadline.
    #[cfg_attr(feature = "http", schema(minimum = 1))]
    pub round_timeout: u64,
    /// The quorum: the fewest reports that may commit a round at its deadline.
    #[cfg_attr(feature = "http", schema(minimum = 1))]
    pub min_updates: u32,
    /// The goal: how many reports a round waits for. Without it, the strategy's own.
    #[cfg_attr(feature = "http", schema(minimum = 1))]
    pub goal: Option<u32>,
    /// How often a round is tried before the job fails.
    #[cfg_attr(feature = "http", schema(minimum = 1))]
    pub max_attempts: u32,
    /// The fewest workers that a job starts with.
    #[cfg_attr(feature = "http", schema(minimum = 1))]
    pub min_workers: u32,
    /// Seconds that a job waits for its first workers before it fails.
    #[cfg_attr(feature = "http", schema(minimum = 1))]
    pub start_timeout: u64,
    /// Seconds that the workers have to evaluate a version before it is recorded as not evaluated.
    #[cfg_attr(feature = "http", schema(minimum = 1))]
    pub evaluation_timeout: u64,
}

impl Default for RoundLimits {
    fn default() -> Self {
        Self {
            round_timeout: 900,
            min_updates: 1,
            goal: None,
            max_attempts: 3,
            min_workers: 1,
            start_timeout: 900,
            evaluation_timeout: 900,
        }
    }
}
