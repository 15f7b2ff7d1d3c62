//! What clients minimize, and what the coordinator does about it: the two halves of FedProx, SCAFFOLD, FedNova, FedDyn and
//! q-FedAvg. The half of the worker is [`LocalObjective`](crate::worker::LocalObjective).

mod counted;
mod feddyn;
mod fednova;
mod plain;
mod proximal;
mod qfedavg;
mod restarts;
mod scaffold;
#[cfg(test)]
mod tests;

pub use counted::Counted;
pub use feddyn::FedDyn;
pub use fednova::FedNova;
pub use plain::Plain;
pub use proximal::Proximal;
pub use qfedavg::QFedAvg;
pub use scaffold::Scaffold;

use std::collections::BTreeMap;

use super::{AggregateContext, NextVersion, Out, Rows, StateSpec, StrategyError};
use crate::{objective::Objective, parameters::PayloadSpec, settings::TrainingSettings};

/// What the clients of a job minimize, and how the coordinator aggregates their reports. The default of each method is FedAvg's.
pub trait ClientObjective: Send + Sync {
    /// What clients are told to minimize, given the numbers of the strategy's state. A worker that does not know it is never given
    /// the job.
    fn objective(&self, numbers: &BTreeMap<String, f64>) -> Objective;

    /// What the coordinator keeps between rounds for it. The names must not be those of the server optimizer's state.
    fn state(&self) -> StateSpec {
        StateSpec::default()
    }

    /// The names of the state's tensors that clients get with each task.
    fn sends(&self) -> Vec<String> {
        Vec::new()
    }

    /// The payloads that a report must have beside `delta`.
    fn expects(&self) -> Vec<PayloadSpec> {
        Vec::new()
    }

    /// Checks the settings of local training: some objectives need a certain local optimizer. Called when a job is submitted
    /// and before each round.
    ///
    /// # Errors
    ///
    /// What is wrong, and what to choose instead.
    fn check(&self, training: &TrainingSettings) -> Result<(), String> {
        let _ = training;
        Ok(())
    }

    /// Why reports can be reduced by the weighted mean alone; none if another [`Reducer`](super::Reducer) can take its place.
    fn needs_mean(&self) -> Option<String> {
        None
    }

    /// Called once in an aggregation, before the blocks. Set numbers of the state here.
    fn begin(&self, round: &AggregateContext<'_>, next: &mut NextVersion<'_>) {
        let _ = (round, next);
    }

    /// How much each report counts, given the weights that the [`Weighting`](super::Weighting) gives them, in client order.
    ///
    /// # Errors
    ///
    /// [`StrategyError`] if the reports can't be aggregated. One report with impossible numbers is no error: it is excluded, and the
    /// round goes on.
    fn count(
        &self,
        round: &AggregateContext<'_>,
        weights: Vec<f64>,
    ) -> Result<Counted, StrategyError> {
        Ok(Counted::weighted(round, weights))
    }

    /// What the objective does to each block in addition to the mean of the deltas; `None` if it does nothing.
    fn block_rule(&self) -> Option<&dyn BlockRule> {
        None
    }
}

/// What a client objective does to a block of trainable values when a round is aggregated.
pub trait BlockRule: Sync {
    /// Called once for each block, from several threads, before the server optimizer. `update` is the mean of the deltas; what this
    /// leaves there is what the server optimizer gets. Write the objective's state through `out`.
    fn apply(
        &self,
        round: &AggregateContext<'_>,
        rows: &Rows<'_>,
        update: &mut [f64],
        out: &mut Out<'_>,
    );
}
