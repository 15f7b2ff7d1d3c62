//! What turns the mean of the clients' deltas into the next model. The negative mean delta is the *pseudo-gradient* of Reddi et al.,
//! "Adaptive Federated Optimization", ICLR 2021, <https://arxiv.org/abs/2003.00295>, whose notation this folder has.

mod adagrad;
mod adam;
mod adaptive;
mod momentum;
mod nesterov;
mod sgd;
#[cfg(test)]
mod tests;
mod yogi;

pub use adagrad::Adagrad;
pub use adam::Adam;
pub use adaptive::Adaptive;
pub use momentum::Momentum;
pub use nesterov::Nesterov;
pub use sgd::Sgd;
pub use yogi::Yogi;

use super::{AggregateContext, NextVersion, Out, StateSpec};

/// Moves the global model by an update. Buffers never come here: they are averaged.
pub trait ServerOptimizer: Send + Sync {
    /// What it keeps between rounds.
    fn state(&self) -> StateSpec {
        StateSpec::default()
    }

    /// Called once in an aggregation, before the blocks: the place to set numbers of the state, such as a count of steps. `step`
    /// sees them as they were before.
    fn begin(&self, round: &AggregateContext<'_>, next: &mut NextVersion<'_>) {
        let _ = (round, next);
    }

    /// Moves one block of trainable values by the update (the mean of the deltas, as the client objective leaves it). Called once
    /// for each block, from several threads. `out` has the block's present values and state, and takes the next ones.
    fn step(&self, round: &AggregateContext<'_>, update: &[f64], out: &mut Out<'_>);

    /// Whether `step` is to add the update and nothing else. The mean is then added at the speed of memory, and `step` is not called.
    fn adds_the_update(&self) -> bool {
        false
    }
}
