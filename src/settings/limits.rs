//! When rounds begin and end.

use serde::{Deserialize, Serialize};

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
