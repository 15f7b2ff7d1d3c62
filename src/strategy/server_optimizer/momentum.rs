//! FedAvgM: Hsu et al., "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification", 2019,
//! <https://arxiv.org/abs/1909.06335>.

use super::ServerOptimizer;
use crate::strategy::{AggregateContext, Out, StateSpec, StateTensor};

const VELOCITY: &str = "velocity";

/// `v = momentum * v + update`; the next model is this one plus `lr * v`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Momentum {
    /// The server's learning rate, at least 0.
    pub lr: f64,
    /// What is kept of the velocity, at least 0 and below 1.
    pub momentum: f64,
}

impl Momentum {
    /// With this learning rate and this momentum.
    pub fn new(lr: f64, momentum: f64) -> Self {
        Self { lr, momentum }
    }
}

impl ServerOptimizer for Momentum {
    fn state(&self) -> StateSpec {
        StateSpec::default().tensor(StateTensor::new(VELOCITY))
    }

    fn step(&self, _: &AggregateContext<'_>, update: &[f64], out: &mut Out<'_>) {
        let (model, [velocity]) = out.tensors([VELOCITY]);
        for (index, update) in update.iter().enumerate() {
            let next = self.momentum * f64::from(velocity[index]) + update;
            velocity[index] = next as f32;
            model[index] = (f64::from(model[index]) + self.lr * next) as f32;
        }
    }
}
