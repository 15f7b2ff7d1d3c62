//! Which algorithm a job uses.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Settings;
use crate::strategy::{FedAvg, FederatedStrategy, UniformSampler, Weighting};

/// The algorithm of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum StrategySpec {
    /// Federated averaging.
    #[serde(rename = "fedavg")]
    FedAvg {
        /// The fraction of the clients whose reports a round waits for, above 0 and at most 1.
        #[serde(default = "one")]
        #[cfg_attr(
            feature = "http",
            schema(exclusive_minimum = 0, maximum = 1, default = 1.0)
        )]
        fraction: f64,
        /// How many more clients than the goal are chosen, as a fraction of the goal.
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
