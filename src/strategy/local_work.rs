//! How much each client of a round trains.

mod same;
mod time_budget;

pub use same::Same;
pub use time_budget::TimeBudget;

use super::ClientInfo;
use crate::settings::TrainingSettings;

/// Decides how much each client of a round trains.
pub trait LocalWork: Send + Sync {
    /// The settings of this client; `None` if it trains with the round's settings.
    fn training(
        &self,
        client: &ClientInfo,
        training: &TrainingSettings,
    ) -> Option<TrainingSettings>;

    /// Whether it uses [`ClientInfo::capacity`]. If not, that is `None` for all clients.
    fn uses_capacity(&self) -> bool {
        false
    }
}
