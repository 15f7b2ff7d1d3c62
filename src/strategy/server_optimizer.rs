//! What turns the mean of the clients' deltas into the next model. The negative mean delta is the *pseudo-gradient* of Reddi et al.,
//! "Adaptive Federated Optimization", ICLR 2021, <https://arxiv.org/abs/2003.00295>, whose notation this folder has.

mod adagrad;
mod adam;
mod adaptive;
mod momentum;
mod sgd;
#[cfg(test)]
mod tests;
mod yogi;

pub use adagrad::Adagrad;
pub use adam::Adam;
pub use adaptive::Adaptive;
pub use momentum::Momentum;
pub use sgd::Sgd;
pub use yogi::Yogi;

use super::{AggregateContext, NextVersion, Out, StateSpec};

/// Moves the global model by an update. Buffers never come here: they are averaged.
pub trait ServerOptimizer: Send + Sync {
    /// What it keeps between rounds.
    fn state(&self) -> StateSpec {
        StateSpec::default()
    }

    /// Called once in an aggregation, before the blocks. Set numbers of the state here, such as a count of steps; `step` still reads
    /// the old ones.
    fn begin(&self, round: &AggregateContext<'_>, next: &mut NextVersion<'_>) {
        let _ = (round, next);
    }

    /// Moves one block of trainable values by the update (the mean of the deltas, as the client objective leaves it). Called once
    /// for each block, from several threads. `out` has the block's present values and state, and takes the next ones.
    fn step(&self, round: &AggregateContext<'_>, update: &[f64], out: &mut Out<'_>);

    /// Whether `step` would only add the update. Then `step` is not called, and the mean is added at the speed of memory.
    fn adds_the_update(&self) -> bool {
        false
    }
}
