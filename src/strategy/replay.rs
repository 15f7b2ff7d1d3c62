//! Repeating a recorded run: cohorts come out of the record, everything else is the strategy's own.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::{
    AggregateContext, Aggregation, FederatedStrategy, Member, NextVersion, RoundContext, RoundPlan,
    StateSpec, StrategyError,
};
use crate::{
    ids::{ClientId, RoundId},
    settings::{RoundLimits, TrainingSettings},
};

/// A strategy whose rounds accept exactly the clients that a record says.
///
/// A round that the record has as abandoned is abandoned again, so that round numbers, and with them every random draw,
/// stay the same.
pub struct Replay {
    inner: Arc<dyn FederatedStrategy>,
    accepted: BTreeMap<RoundId, Option<Vec<ClientId>>>,
}

impl fmt::Debug for Replay {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Replay({} rounds)", self.accepted.len())
    }
}

impl Replay {
    /// Repeats rounds with this strategy; `accepted` has the clients of each round whose reports were accepted, and none for an
    /// abandoned round.
    pub fn new(
        inner: Arc<dyn FederatedStrategy>,
        accepted: impl IntoIterator<Item = (RoundId, Option<Vec<ClientId>>)>,
    ) -> Self {
        Self {
            inner,
            accepted: accepted.into_iter().collect(),
        }
    }
}

impl FederatedStrategy for Replay {
    fn state(&self) -> StateSpec {
        self.inner.state()
    }

    fn check(&self, training: &TrainingSettings) -> Result<(), String> {
        self.inner.check(training)
    }

    fn check_limits(&self, limits: &RoundLimits, clients: Option<u32>) -> Result<(), String> {
        self.inner.check_limits(limits, clients)
    }

    fn uses_capacity(&self) -> bool {
        self.inner.uses_capacity()
    }

    fn plan(&self, round: &RoundContext<'_>) -> Result<RoundPlan, StrategyError> {
        let clients = match self.accepted.get(&round.round) {
            Some(Some(clients)) => clients,
            Some(None) => {
                let problem = "the record has this round as abandoned".to_string();
                return Err(StrategyError::Plan(problem));
            }
            None => {
                let problem = format!("the record has no round {}", round.round);
                return Err(StrategyError::Plan(problem));
            }
        };
        let planned = self.inner.plan(round)?;
        let mut members = Vec::with_capacity(clients.len());
        for client in clients {
            let known = planned
                .members
                .iter()
                .find(|member| member.client == *client);
            // The record has who reported, which decides. A client that the strategy would not choose now trains with
            // the plan's settings.
            members.push(known.cloned().unwrap_or_else(|| Member::new(*client)));
        }
        Ok(RoundPlan {
            // The recorded round accepted all of these reports. One that closed with fewer would make another version.
            goal: members.len(),
            quorum: planned.quorum.min(members.len()),
            // What a rule takes for the number of attackers depends on it.
            asked: Some(planned.cohort_size()),
            members,
            ..planned
        })
    }

    fn aggregate(
        &self,
        round: &AggregateContext<'_>,
        next: &mut NextVersion<'_>,
    ) -> Result<Aggregation, StrategyError> {
        // The quorum may be below the accepted reports of the record: it counts what is folded.
        if let Some(Some(recorded)) = self.accepted.get(&round.round())
            && recorded.len() != round.reports().len()
        {
            return Err(StrategyError::Aggregate(format!(
                "the record has {} accepted reports of this round, and {} came",
                recorded.len(),
                round.reports().len()
            )));
        }
        self.inner.aggregate(round, next)
    }
}
