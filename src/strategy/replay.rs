//! Repeating a recorded run: cohorts come out of the record, everything else is the strategy's own.

use std::collections::BTreeMap;

use super::{
    Aggregation, FederatedStrategy, Member, RoundContext, RoundPlan, RoundRng, StrategyError,
    StrategyState,
};
use crate::{
    ids::{ClientId, RoundId},
    parameters::{BlockReader, BlockWriter},
    report::Reports,
};

/// A strategy whose rounds fold exactly the clients that a record says.
///
/// A round that the record has as abandoned is abandoned again, so that round numbers, and with them every random draw,
/// stay the same.
pub struct Replay {
    inner: Box<dyn FederatedStrategy>,
    folded: BTreeMap<RoundId, Vec<ClientId>>,
}

impl Replay {
    /// Repeats rounds with this strategy; `folded` has the clients of each round, none for an abandoned one.
    pub fn new(
        inner: Box<dyn FederatedStrategy>,
        folded: impl IntoIterator<Item = (RoundId, Vec<ClientId>)>,
    ) -> Self {
        Self {
            inner,
            folded: folded.into_iter().collect(),
        }
    }
}

impl FederatedStrategy for Replay {
    fn plan(
        &mut self,
        round: &RoundContext<'_>,
        rng: &mut RoundRng,
    ) -> Result<RoundPlan, StrategyError> {
        let planned = self.inner.plan(round, rng)?;
        match self.folded.get(&round.round) {
            Some(cohort) if !cohort.is_empty() => {
                let count = cohort.len();
                Ok(RoundPlan {
                    members: cohort.iter().copied().map(Member::new).collect(),
                    goal: count,
                    quorum: count,
                    ..planned
                })
            }
            Some(_) => Err(StrategyError::Plan(
                "the record has this round as abandoned".to_string(),
            )),
            None => Err(StrategyError::Plan(format!(
                "the record has no round {}",
                round.round
            ))),
        }
    }

    fn aggregate(
        &mut self,
        global: &dyn BlockReader,
        reports: &Reports<'_>,
        next: &mut dyn BlockWriter,
    ) -> Result<Aggregation, StrategyError> {
        self.inner.aggregate(global, reports, next)
    }

    fn export_state(&self) -> StrategyState {
        self.inner.export_state()
    }

    fn import_state(&mut self, state: StrategyState) -> Result<(), StrategyError> {
        self.inner.import_state(state)
    }
}
