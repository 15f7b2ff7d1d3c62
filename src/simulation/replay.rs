//! Repeating a recorded run: whether a record is complete, and the strategy that follows it.

use std::sync::Arc;

use super::{
    error::SimulationError,
    own_strategy::{OwnStrategy, STRATEGY},
};
use crate::{
    coordinator::{StrategyFactory, strategy_factory},
    job::JobSpec,
    panics,
    protocol::RoundRecord,
    strategy::{Catalogue, Replay},
};

/// The strategy that repeats these records with the run's own strategy, or else with the job's. The job is given the
/// record's rounds.
pub(super) fn repeating(
    records: Vec<RoundRecord>,
    own: Option<OwnStrategy>,
    spec: &mut JobSpec,
    catalogue: &Catalogue,
) -> Result<OwnStrategy, SimulationError> {
    if spec.partition.is_measured() {
        return Err(SimulationError::MeasuredPartition);
    }
    check_records(&records, spec.first_round)?;
    if let Some(record) = records.iter().find(|record| !record.state_lost.is_empty()) {
        return Err(SimulationError::Replay(format!(
            "clients {:?} lost what they had kept before round {}, and a run in one process loses nothing",
            record.state_lost, record.round
        )));
    }
    let committed = records
        .iter()
        .filter(|record| record.version.is_some())
        .count();
    // A record of a run that was cut short ends earlier than its job, and had the learning rates of the whole.
    if (committed as u32) < spec.rounds {
        spec.schedule = spec.schedule.made_for(spec.rounds);
        spec.rounds = committed as u32;
    }
    // Abandoned rounds are repeated as abandoned ones, and must not end the job before its record does.
    let attempts = records.len() as u32 + 1;
    spec.limits.max_attempts = spec.limits.max_attempts.max(attempts);
    let mut accepted = Vec::new();
    for record in records {
        // Not an empty list for an abandoned round: a round without any report has that, too.
        let clients = match record.abandoned {
            Some(_) => None,
            None => Some(record.accepted),
        };
        accepted.push((record.round, clients));
    }
    let base: StrategyFactory = match own {
        Some(own) => own.factory,
        None => {
            let built = spec.strategy.build(catalogue);
            let strategy = built.map_err(|error| SimulationError::Replay(error.to_string()))?;
            let strategy = strategy.ok_or(SimulationError::NoStrategy)?;
            Arc::new(move |_, _| Ok(strategy.clone()))
        }
    };
    let made = panics::caught(|| base(spec, spec.strategy.settings()));
    if let Ok(Ok(made)) = made
        && made.uses_capacity()
    {
        return Err(SimulationError::MeasuredStrategy);
    }
    let factory = strategy_factory(move |spec, settings| {
        Ok(Replay::new(base(spec, settings)?, accepted.clone()))
    });
    let name = STRATEGY.to_string();
    Ok(OwnStrategy { name, factory })
}

/// Checks that a record has each round once, in order, from the first on.
fn check_records(records: &[RoundRecord], first: u32) -> Result<(), SimulationError> {
    // Versions count from 1 in each run, also in one whose first round is a later one.
    let mut version = 0;
    for (record, round) in records.iter().zip(u64::from(first)..) {
        if record.round.0 != round {
            return Err(SimulationError::Replay(format!(
                "the record has round {} in place of round {round}: rounds are missing, or out of order",
                record.round
            )));
        }
        // An abandoned round made none.
        if let Some(made) = record.version {
            version += 1;
            if made.0 != version {
                return Err(SimulationError::Replay(format!(
                    "round {round} of the record made version {made}, and version {version} comes next"
                )));
            }
        }
    }
    Ok(())
}
