//! What Adagrad, Adam and Yogi share: algorithm 2 of Reddi et al. 2021.

use crate::strategy::{Out, StateSpec, StateTensor};

const FIRST: &str = "m";
const SECOND: &str = "v";

/// The settings of an adaptive server optimizer. There is no correction of the moments' bias, as in the paper.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Adaptive {
    /// The server's learning rate (`eta` of the paper), at least 0.
    pub lr: f64,
    /// How adaptive it is (`tau` of the paper), above 0: the smaller, the more.
    pub tau: f64,
    /// The factor of the first moment before, at least 0 and below 1.
    pub beta1: f64,
    /// `v` before the first round, at least 0.
    pub initial_v: f64,
}

impl Adaptive {
    /// With these, and `v` beginning with the square of `tau`, the least that the paper allows.
    pub fn new(lr: f64, tau: f64, beta1: f64) -> Self {
        Self {
            lr,
            tau,
            beta1,
            initial_v: tau * tau,
        }
    }

    pub(super) fn state(&self) -> StateSpec {
        let second = StateTensor::new(SECOND).filled(self.initial_v as f32);
        StateSpec::default()
            .tensor(StateTensor::new(FIRST))
            .tensor(second)
    }

    /// Moves a block: `next_v` is the next second moment, of the present one and the square of the update.
    pub(super) fn step(&self, update: &[f64], out: &mut Out<'_>, next_v: impl Fn(f64, f64) -> f64) {
        let (model, [first, second]) = out.tensors([FIRST, SECOND]);
        for (index, update) in update.iter().enumerate() {
            let m = self.beta1 * f64::from(first[index]) + (1.0 - self.beta1) * update;
            let v = next_v(f64::from(second[index]), update * update);
            let moved = self.lr * m / (v.sqrt() + self.tau);
            model[index] = (f64::from(model[index]) + moved) as f32;
            (first[index], second[index]) = (m as f32, v as f32);
        }
    }
}
