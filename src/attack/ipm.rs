//! Inner product manipulation: the opposite of the attackers' mean.

use super::{Attack, AttackRound, Needs};
use crate::worker::{LocalUpdate, TrainError};

/// Inner product manipulation: Xie et al. 2019 (<https://arxiv.org/abs/1903.03936>). All attackers send `-epsilon * mean` of their own
/// honest changes (the paper's attackers know those of the honest clients, too).
///
/// A small epsilon passes robust rules, which then make slower progress or go backwards. With a fraction `f` of attackers, the mean goes
/// backwards above `(1 - f) / f`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Ipm {
    /// How many times as long as the mean.
    pub epsilon: f64,
}

impl Ipm {
    /// With this epsilon.
    pub fn new(epsilon: f64) -> Self {
        Self { epsilon }
    }
}

impl Attack for Ipm {
    fn needs(&self) -> Needs {
        Needs::default().with_colluders()
    }

    fn update(&self, update: &mut LocalUpdate, round: &AttackRound<'_>) -> Result<(), TrainError> {
        round.send(update, |place, _| -self.epsilon * round.moments(place).0);
        Ok(())
    }
}
