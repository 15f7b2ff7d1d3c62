//! A step in the direction of the update.

use super::ServerOptimizer;
use crate::strategy::{AggregateContext, Out};

/// The next model is this one plus `lr` times the update. With a rate of 1, that is FedAvg.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Sgd {
    /// The server's learning rate, at least 0.
    pub lr: f64,
}

impl Default for Sgd {
    fn default() -> Self {
        Self { lr: 1.0 }
    }
}

impl Sgd {
    /// With this learning rate.
    pub fn new(lr: f64) -> Self {
        Self { lr }
    }
}

impl ServerOptimizer for Sgd {
    fn step(&self, _: &AggregateContext<'_>, update: &[f64], out: &mut Out<'_>) {
        for (value, update) in out.model().iter_mut().zip(update) {
            *value = (f64::from(*value) + self.lr * update) as f32;
        }
    }

    fn adds_the_update(&self) -> bool {
        self.lr == 1.0
    }
}
