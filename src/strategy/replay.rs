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

/// A strategy whose rounds accept exactly the clients that a record says.
///
/// A round that the record has as abandoned is abandoned again, so that round numbers, and with them every random draw,
/// stay the same.
pub struct Replay {
    inner: Box<dyn FederatedStrategy>,
    /// The clients of each round; none for a round that was abandoned.
    accepted: BTreeMap<RoundId, Option<Vec<ClientId>>>,
}

impl Replay {
    /// Repeats rounds with this strategy. `accepted` has the clients of each round, none for one that was abandoned.
    pub fn new(
        inner: Box<dyn FederatedStrategy>,
        accepted: impl IntoIterator<Item = (RoundId, Option<Vec<ClientId>>)>,
    ) -> Self {
        Self {
            inner,
            accepted: accepted.into_iter().collect(),
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
        match self.accepted.get(&round.round) {
            Some(Some(clients)) => {
                let mut plan = planned;
                let mut members = Vec::new();
                for client in clients {
                    let found = plan.members.iter().find(|member| member.client == *client);
                    members.push(found.cloned().unwrap_or_else(|| Member::new(*client)));
                }
                plan.goal = members.len();
                plan.quorum = plan.quorum.min(members.len());
                plan.members = members;
                Ok(plan)
            }
            Some(None) => Err(StrategyError::Plan(
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
        // The quorum may be below the accepted reports of the record: it counts what is folded.
        if let Some(first) = reports.iter().next()
            && let Some(Some(recorded)) = self.accepted.get(&first.round)
            && recorded.len() != reports.len()
        {
            return Err(StrategyError::Aggregate(format!(
                "the record has {} accepted reports of this round, and {} came",
                recorded.len(),
                reports.len()
            )));
        }
        self.inner.aggregate(global, reports, next)
    }

    fn export_state(&self) -> StrategyState {
        self.inner.export_state()
    }

    fn import_state(&mut self, state: StrategyState) -> Result<(), StrategyError> {
        self.inner.import_state(state)
    }
}
