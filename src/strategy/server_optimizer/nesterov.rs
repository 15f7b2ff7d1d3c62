//! Nesterov's momentum, as DiLoCo has it: Douillard et al., "DiLoCo: Distributed Low-Communication Training of Language Models",
//! 2023, <https://arxiv.org/abs/2311.08105>. The formula is that of `torch.optim.SGD(nesterov=True)`.

use super::ServerOptimizer;
use crate::strategy::{AggregateContext, Out, StateSpec, StateTensor};

const VELOCITY: &str = "velocity";

/// `v = momentum * v + update`; the next model is this one plus `lr * (update + momentum * v)`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Nesterov {
    /// The server's learning rate, at least 0.
    pub lr: f64,
    /// What is kept of the velocity, at least 0 and below 1.
    pub momentum: f64,
}

impl Nesterov {
    /// With this learning rate and this momentum.
    pub fn new(lr: f64, momentum: f64) -> Self {
        Self { lr, momentum }
    }
}

impl ServerOptimizer for Nesterov {
    fn state(&self) -> StateSpec {
        StateSpec::default().tensor(StateTensor::new(VELOCITY))
    }

    fn step(&self, _: &AggregateContext<'_>, update: &[f64], out: &mut Out<'_>) {
        let (model, [velocity]) = out.tensors([VELOCITY]);
        for (index, update) in update.iter().enumerate() {
            let next = self.momentum * f64::from(velocity[index]) + update;
            velocity[index] = next as f32;
            let step = update + self.momentum * next;
            model[index] = (f64::from(model[index]) + self.lr * step) as f32;
        }
    }
}
