//! FedAdam: Reddi et al. 2021, algorithm 2.

use super::{Adaptive, ServerOptimizer};
use crate::strategy::{AggregateContext, Out, StateSpec};

/// `v` is a moving mean of the squared updates.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Adam {
    /// Its settings.
    pub settings: Adaptive,
    /// The factor of the second moment before, at least 0 and below 1.
    pub beta2: f64,
}

impl Adam {
    /// With these settings.
    pub fn new(settings: Adaptive, beta2: f64) -> Self {
        Self { settings, beta2 }
    }
}

impl ServerOptimizer for Adam {
    fn state(&self) -> StateSpec {
        self.settings.state()
    }

    fn step(&self, _: &AggregateContext<'_>, update: &[f64], out: &mut Out<'_>) {
        self.settings.step(update, out, |v, squared| {
            self.beta2 * v + (1.0 - self.beta2) * squared
        });
    }
}
