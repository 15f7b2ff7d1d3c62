//! FedYogi: Reddi et al. 2021, algorithm 2.

use super::{Adaptive, ServerOptimizer};
use crate::strategy::{AggregateContext, Out, StateSpec};

/// As [`Adam`](super::Adam), but `v` moves by an amount that depends on the squared update alone, so it falls slowly after a large
/// one.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Yogi {
    /// Its settings.
    pub settings: Adaptive,
    /// The factor of the second moment before, at least 0 and below 1.
    pub beta2: f64,
}

impl Yogi {
    /// With these settings.
    pub fn new(settings: Adaptive, beta2: f64) -> Self {
        Self { settings, beta2 }
    }
}

impl ServerOptimizer for Yogi {
    fn state(&self) -> StateSpec {
        self.settings.state()
    }

    fn step(&self, _: &AggregateContext<'_>, update: &[f64], out: &mut Out<'_>) {
        self.settings.step(update, out, |v, squared| {
            // Not f64::signum, which is 1 for 0.
            let sign = f64::from(i8::from(v > squared) - i8::from(v < squared));
            v - (1.0 - self.beta2) * squared * sign
        });
    }
}
