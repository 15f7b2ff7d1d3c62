//! Noise in place of a change.

use rand_distr::{Distribution, StandardNormal};

use super::{Attack, AttackRound, Effort, Needs};
use crate::worker::{LocalUpdate, TrainError};

/// Trains nothing, and sends independent draws from N(0, sigma^2): Blanchard et al. 2017 (<https://arxiv.org/abs/1703.02757>), who
/// draw gradients with a sigma of 200.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Gaussian {
    /// The standard deviation of each value of the change.
    pub sigma: f64,
}

impl Gaussian {
    /// With this standard deviation.
    pub fn new(sigma: f64) -> Self {
        Self { sigma }
    }
}

impl Attack for Gaussian {
    fn needs(&self) -> Needs {
        Needs::default().with_effort(Effort::Nothing)
    }

    fn update(&self, update: &mut LocalUpdate, round: &AttackRound<'_>) -> Result<(), TrainError> {
        let mut generator = round.generator();
        round.send(update, |_, _| {
            let draw: f64 = StandardNormal.sample(&mut generator);
            self.sigma * draw
        });
        Ok(())
    }
}
