//! How much each client of a round trains.

mod same;
mod time_budget;

pub use same::Same;
pub use time_budget::TimeBudget;

use super::ClientInfo;
use crate::settings::TrainingSettings;

/// Says how much a client trains, where that is not the same for all.
pub trait LocalWork: Send + Sync {
    /// The settings of a client of the cohort, if they are not the round's.
    fn training(
        &self,
        client: &ClientInfo,
        training: &TrainingSettings,
    ) -> Option<TrainingSettings>;

    /// Whether it looks at [`ClientInfo::capacity`], which is none for all clients otherwise.
    fn uses_capacity(&self) -> bool {
        false
    }
}
