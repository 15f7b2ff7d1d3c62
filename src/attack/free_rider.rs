//! A client that gets the model without training.

use rand_distr::{Distribution, StandardNormal};

use super::{Attack, AttackRound, Effort, Needs};
use crate::worker::{LocalUpdate, TrainError};

/// Trains nothing, and sends `scale` times the last change of the global model plus draws from N(0, sigma^2): the delta weights of Lin et
/// al. 2019 (<https://arxiv.org/abs/1911.12560>). In the first round there is no last change, and it sends the noise alone. With a scale
/// of 0 it is the free rider of Fraboni et al. 2021 (<https://arxiv.org/abs/2006.11901>), disguised by noise if sigma is above 0.
///
/// It claims all examples of its client, and the steps of an honest one.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct FreeRider {
    /// How many times as long as the last change of the global model.
    pub scale: f64,
    /// The standard deviation of the noise on each value; 0 for none.
    pub sigma: f64,
}

impl FreeRider {
    /// With this scale and this noise.
    pub fn new(scale: f64, sigma: f64) -> Self {
        Self { scale, sigma }
    }
}

impl Attack for FreeRider {
    fn needs(&self) -> Needs {
        Needs::default().with_effort(Effort::Nothing)
    }

    fn update(&self, update: &mut LocalUpdate, round: &AttackRound<'_>) -> Result<(), TrainError> {
        let mut generator = round.generator();
        round.send(update, |place, _| {
            let last = round.previous.map_or(0.0, |previous| {
                f64::from(round.global.values()[place]) - f64::from(previous.values()[place])
            });
            let draw: f64 = StandardNormal.sample(&mut generator);
            self.scale * last + self.sigma * draw
        });
        Ok(())
    }
}
