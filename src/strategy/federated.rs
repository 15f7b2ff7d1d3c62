//! What an algorithm of federated learning is, and how it is run over a round's reports.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    AggregateContext, Aggregation, NextVersion, RoundContext, RoundPlan, StateSpec, StrategyError,
    VersionSink,
};
use crate::settings::{RoundLimits, TrainingSettings};

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

    /// Checks the job's settings of local training. Called when a job is submitted.
    ///
    /// # Errors
    ///
    /// What is wrong, and what to choose instead.
    fn check(&self, training: &TrainingSettings) -> Result<(), String> {
        let _ = training;
        Ok(())
    }

    /// Checks the job's limits, given the number of its clients, if it is known: a strategy that sets goal or quorum itself refuses a
    /// job that asks for others, and one that needs more reports than a round can have says so. Called when a job is submitted.
    ///
    /// # Errors
    ///
    /// Which limit is wrong, and what to choose instead.
    fn check_limits(&self, limits: &RoundLimits, clients: Option<u32>) -> Result<(), String> {
        let _ = (limits, clients);
        Ok(())
    }

    /// Whether its plans use [`ClientInfo::capacity`](super::ClientInfo::capacity). If not, that is `None` for all clients.
    fn uses_capacity(&self) -> bool {
        false
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

    fn check(&self, training: &TrainingSettings) -> Result<(), String> {
        (**self).check(training)
    }

    fn check_limits(&self, limits: &RoundLimits, clients: Option<u32>) -> Result<(), String> {
        (**self).check_limits(limits, clients)
    }

    fn uses_capacity(&self) -> bool {
        (**self).uses_capacity()
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
