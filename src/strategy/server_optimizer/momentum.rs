//! Momentum on the server. The plain one is FedAvgM: Hsu et al., "Measuring the Effects of Non-Identical Data Distribution for
//! Federated Visual Classification", 2019, <https://arxiv.org/abs/1909.06335>. Nesterov's is DiLoCo's: Douillard et al., "DiLoCo:
//! Distributed Low-Communication Training of Language Models", 2023, <https://arxiv.org/abs/2311.08105>.

use super::ServerOptimizer;
use crate::strategy::{AggregateContext, Out, StateSpec, StateTensor};

const VELOCITY: &str = "velocity";

/// `v = momentum * v + update`; the next model is this one plus `lr * v`, or with Nesterov's momentum
/// `lr * (update + momentum * v)`, as in `torch.optim.SGD`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Momentum {
    /// The server's learning rate, at least 0.
    pub lr: f64,
    /// The factor of the velocity before, at least 0 and below 1.
    pub momentum: f64,
    /// Whether it is Nesterov's.
    pub nesterov: bool,
}

impl Momentum {
    /// With this learning rate and this momentum.
    pub fn new(lr: f64, momentum: f64) -> Self {
        Self {
            lr,
            momentum,
            nesterov: false,
        }
    }

    /// The same with Nesterov's momentum.
    pub fn nesterov(mut self) -> Self {
        self.nesterov = true;
        self
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
            let step = if self.nesterov {
                update + self.momentum * next
            } else {
                next
            };
            model[index] = (f64::from(model[index]) + self.lr * step) as f32;
        }
    }
}
