//! What a round does with its clients and their reports: the algorithm of federated learning, as a value.
//!
//! A strategy *plans* a round (who trains, with which settings, how many reports are enough) and *aggregates* its
//! reports into the next global model. It owns no loop, no network, no clock and no sleep: the round machine decides
//! when, and the coordinator carries it out. It keeps nothing between rounds either: what an algorithm remembers is its
//! [state](StateSpec), which belongs to a model version. So a strategy is shared without a lock, and a round that fails leaves no
//! trace. An algorithm is a composition of parts: [`FedAvg`] is a [`UniformSampler`], a [`Weighting`] and a fold.
//!
//! ```
//! use fedavg::strategy::{
//!     AggregateContext, Aggregation, FedAvg, FederatedStrategy, Inputs, NextVersion, RoundContext, RoundPlan, StrategyError,
//! };
//!
//! /// Plans as FedAvg does, and takes the coordinate-wise median of the deltas.
//! struct Median(FedAvg);
//!
//! impl FederatedStrategy for Median {
//!     fn plan(&self, round: &RoundContext<'_>) -> Result<RoundPlan, StrategyError> {
//!         self.0.plan(round)
//!     }
//!
//!     fn aggregate(&self, round: &AggregateContext<'_>, next: &mut NextVersion<'_>) -> Result<Aggregation, StrategyError> {
//!         let clients: Vec<_> = round.reports().iter().map(|report| report.client).collect();
//!         let inputs = Inputs::new("delta", clients.iter().map(|client| (*client, 1.0)));
//!         next.fold(&inputs, &|rows, out| {
//!             let mut median = vec![0.0; rows.len()];
//!             rows.median("delta", &mut median);
//!             for (value, delta) in out.model().iter_mut().zip(&median) {
//!                 *value = (f64::from(*value) + delta) as f32;
//!             }
//!         })?;
//!         Ok(Aggregation::new(clients, inputs.total()))
//!     }
//! }
//! ```

mod checks;
mod context;
mod fedavg;
mod fold;
mod inputs;
mod kernel;
mod plan;
mod replay;
mod rows;
mod sampler;
mod state;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod weighting;

use std::{collections::BTreeMap, sync::Arc};

pub use context::{AggregateContext, RoundContext, Seeds, StateValues, Version};
pub use fedavg::FedAvg;
pub use fold::{NextVersion, Out, VersionSink};
pub use inputs::Inputs;
pub use plan::{Aggregation, ClientInfo, Member, RoundPlan};
pub use replay::Replay;
pub use rows::Rows;
pub use sampler::UniformSampler;
pub use state::{Initial, StateSpec, StateTensor};
use thiserror::Error;
pub use weighting::Weighting;

use crate::{parameters::BlockError, report::ReportError};

/// One algorithm of federated learning. Object-safe, so that configuration chooses it at run time.
///
/// # Contract for implementors
///
/// 1. Every method is a function of its arguments and of the strategy's configuration: the same arguments give the same bits.
///    All randomness comes from the context.
/// 2. What an algorithm remembers is in its [`StateSpec`] and nowhere else. `&self` is shared by threads, rounds and restarts.
/// 3. `aggregate` calls [`NextVersion::fold`] exactly once. It reads values through `fold` and [`AggregateContext::scan`] alone.
/// 4. The aggregation names each accepted client once, as folded or as excluded.
///
/// What a caller promises: methods are never called under a lock; a panic in one ends the round with its message; on an error, a
/// panic or a cancellation nothing of the next version is kept.
pub trait FederatedStrategy: Send + Sync {
    /// What is kept between rounds. Asked once, when a job is submitted.
    fn state(&self) -> StateSpec {
        StateSpec::default()
    }

    /// Decides who trains in a round and how many reports are enough.
    ///
    /// # Errors
    ///
    /// [`StrategyError`] if no round can be planned, which abandons the round.
    fn plan(&self, round: &RoundContext<'_>) -> Result<RoundPlan, StrategyError>;

    /// Makes the next global model out of this one and a round's reports.
    ///
    /// # Errors
    ///
    /// [`StrategyError`] if it can't, which abandons the round and leaves model and state as they were.
    fn aggregate(
        &self,
        round: &AggregateContext<'_>,
        next: &mut NextVersion<'_>,
    ) -> Result<Aggregation, StrategyError>;
}

impl<S: FederatedStrategy + ?Sized> FederatedStrategy for Arc<S> {
    fn state(&self) -> StateSpec {
        (**self).state()
    }

    fn plan(&self, round: &RoundContext<'_>) -> Result<RoundPlan, StrategyError> {
        (**self).plan(round)
    }

    fn aggregate(
        &self,
        round: &AggregateContext<'_>,
        next: &mut NextVersion<'_>,
    ) -> Result<Aggregation, StrategyError> {
        (**self).aggregate(round, next)
    }
}

/// Has a strategy aggregate a round into a sink: what it says of it, and the numbers of the state from then on.
///
/// # Errors
///
/// What the strategy says; [`StrategyError::Folds`] if it did not fold exactly once, [`StrategyError::State`] if a number of the
/// state is not finite or not named by its [`StateSpec`].
pub fn aggregate(
    strategy: &dyn FederatedStrategy,
    context: AggregateContext<'_>,
    sink: &mut dyn VersionSink,
) -> Result<(Aggregation, BTreeMap<String, f64>), StrategyError> {
    let mut next = NextVersion::new(context, sink);
    let aggregation = strategy.aggregate(&context, &mut next)?;
    Ok((aggregation, next.finish()?))
}

/// Why a strategy could not do its part.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum StrategyError {
    /// The settings that a job gives are not ones of this strategy.
    #[error("the strategy's settings are not valid: {0}")]
    Settings(String),
    /// No cohort can be made of these clients.
    #[error("no round can be planned: {0}")]
    Plan(String),
    /// The reports can't be aggregated: all weights are zero, for example.
    #[error("the reports can't be aggregated: {0}")]
    Aggregate(String),
    /// The next model would have a value that is infinite or not a number.
    #[error(
        "training diverged: {tensor:?} would be {value} at index {index} of the next model; a smaller learning rate or \
         clipped updates avoid that"
    )]
    Diverged {
        /// The tensor.
        tensor: String,
        /// The place in it, in row-major order.
        index: usize,
        /// The value.
        value: String,
    },
    /// The next model would have a BatchNorm variance below zero.
    #[error(
        "{tensor:?} would be {value} at index {index} of the next model, and no variance is negative; fold buffers with \
         coefficients that are not negative (`Inputs::with_buffers`)"
    )]
    NegativeVariance {
        /// The tensor.
        tensor: String,
        /// The place in it, in row-major order.
        index: usize,
        /// The value.
        value: String,
    },
    /// A report could not be read.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// The global model could not be read, or the next one not written.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// The state does not fit the model, or has a number that is not finite.
    #[error("the strategy's state is not valid: {0}")]
    State(String),
    /// An aggregation folded not exactly once.
    #[error(
        "the strategy called fold {calls} times in an aggregation: exactly one call makes a model"
    )]
    Folds {
        /// How often it did.
        calls: u32,
    },
    /// The strategy's own code panicked.
    #[error("the strategy panicked: {0}")]
    Panicked(String),
    /// The job was cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl From<serde_json::Error> for StrategyError {
    fn from(error: serde_json::Error) -> Self {
        Self::Settings(error.to_string())
    }
}
