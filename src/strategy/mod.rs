//! What a round does with its clients and their reports: the algorithm of federated learning, as a value.
//!
//! A strategy *plans* a round (who trains, with which settings, how many reports are enough) and *aggregates* its
//! reports into the next global model. It owns no loop, no network, no clock and no sleep: the round machine decides
//! when, and the coordinator carries it out. It keeps nothing between rounds either: what an algorithm remembers is its
//! [state](StateSpec), which belongs to a model version. So a strategy is shared without a lock, and a round that fails leaves no
//! trace.
//!
//! The field's algorithms are [compositions](Composition) of seven small parts, each a trait with a file for each implementation: a
//! [`Sampler`], [`LocalWork`], a [`ReportFilter`], a [`Weighting`], a [`ClientObjective`], a [`Reducer`] and a [`ServerOptimizer`]. A [`Catalogue`] has them by name, as jobs do.
//! Write a strategy of your own if no composition does what you need:
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

mod catalogue;
mod checks;
pub mod client_objective;
mod composition;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod context;
mod error;
mod federated;
pub mod filter;
mod fold;
mod inputs;
mod kernel;
pub mod local_work;
mod plan;
pub mod reducer;
mod replay;
mod rows;
pub mod sampler;
pub mod server_optimizer;
mod state;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod weighting;

pub use catalogue::{
    Catalogue, CatalogueError, Parameter, ParameterKind, PartInfo, PartKind, Preset, Values,
};
pub use client_objective::{BlockRule, ClientObjective, Counted};
pub use composition::{Composition, ReducerNeeds};
pub use context::{AggregateContext, RoundContext, Seeds, StateValues, Version};
pub use error::StrategyError;
pub use federated::{FederatedStrategy, aggregate};
pub use filter::{Filtered, ReportFilter};
pub use fold::{NextVersion, Out, VersionSink};
pub use inputs::Inputs;
pub use local_work::LocalWork;
pub use plan::{Aggregation, ClientInfo, Member, RoundPlan};
pub use reducer::{BlockReducer, Reducer, Reduction};
pub use replay::Replay;
pub use rows::Rows;
pub use sampler::{Cohort, Sampler};
pub use server_optimizer::ServerOptimizer;
pub use state::{Initial, StateSpec, StateTensor};
pub use weighting::Weighting;

/// Federated averaging, which is the default of each part.
pub type FedAvg = Composition;
