//! What a round machine is told about its job, once.

use serde::{Deserialize, Serialize};

use crate::{ids::RoundId, round::ProgressRules, settings::RoundLimits};

/// What a round machine needs to know of its job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MachineConfig {
    /// Number of rounds to commit; 0: the initial model is evaluated, and nothing else happens.
    pub rounds: u32,
    /// The number of the first round, at least 1.
    pub first_round: RoundId,
    /// Quorum, deadlines and attempts.
    pub limits: RoundLimits,
    /// Who evaluates.
    pub evaluation: EvaluationBy,
    /// Whether the data may be dealt again between rounds: each round then begins with
    /// [`Command::Deal`](crate::round::Command::Deal).
    pub deals: bool,
    /// Whether clients have a home although their data was dealt: the worker that keeps their personal tensors.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pinned: bool,
    /// Which version is the best, when the job ends early, and what is measured when.
    #[serde(default)]
    pub progress: ProgressRules,
}

/// Who evaluates the versions of this job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EvaluationBy {
    /// The driver, on [`Command::Evaluate`](crate::round::Command::Evaluate).
    Driver,
    /// The workers, each client a share.
    Workers,
    /// No evaluation.
    Nobody,
}
