//! FedAdagrad: Reddi et al. 2021, algorithm 2.

use super::{Adaptive, ServerOptimizer};
use crate::strategy::{AggregateContext, Out, StateSpec};

/// `v` is the sum of all squared updates: each value moves the less, the more it has moved.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Adagrad {
    /// Its settings; the paper has `beta1` = 0.
    pub settings: Adaptive,
}

impl Adagrad {
    /// With these settings.
    pub fn new(settings: Adaptive) -> Self {
        Self { settings }
    }
}

impl ServerOptimizer for Adagrad {
    fn state(&self) -> StateSpec {
        self.settings.state()
    }

    fn step(&self, _: &AggregateContext<'_>, update: &[f64], out: &mut Out<'_>) {
        self.settings.step(update, out, |v, squared| v + squared);
    }
}
