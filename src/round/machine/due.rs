//! Evaluations that wait for their turn.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{ModelVersion, RoundId},
    settings::EvalSplit,
};

/// An evaluation whose turn comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "DueForm")]
pub struct Due {
    pub version: ModelVersion,
    /// The round that made it.
    pub round: RoundId,
    pub split: EvalSplit,
}

/// As it is written down, and as it was by versions of this program that knew the test split alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum DueForm {
    Named {
        version: ModelVersion,
        round: RoundId,
        split: EvalSplit,
    },
    Pair(ModelVersion, RoundId),
}

impl From<DueForm> for Due {
    fn from(form: DueForm) -> Self {
        let (version, round, split) = match form {
            DueForm::Named {
                version,
                round,
                split,
            } => (version, round, split),
            DueForm::Pair(version, round) => (version, round, EvalSplit::Test),
        };
        Self {
            version,
            round,
            split,
        }
    }
}
