//! The opposite of the honest change.

use super::{Attack, AttackRound};
use crate::worker::{LocalUpdate, TrainError};

/// Sends `-scale * delta`, where `delta` is the attacker's honest change. With 1, it is the bit flipping of Karimireddy et al. 2022
/// (<https://arxiv.org/abs/2006.09365>); Li et al. 2019 (RSA, <https://arxiv.org/abs/1811.03761>) have 4.
///
/// With a fraction `f` of attackers, the mean makes no progress at a scale of `(1 - f) / f`, and goes backwards above it.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct SignFlip {
    /// How many times as long as the honest change.
    pub scale: f64,
}

impl SignFlip {
    /// With this scale.
    pub fn new(scale: f64) -> Self {
        Self { scale }
    }
}

impl Attack for SignFlip {
    fn update(&self, update: &mut LocalUpdate, round: &AttackRound<'_>) -> Result<(), TrainError> {
        round.send(update, |_, honest| -self.scale * honest);
        Ok(())
    }
}
