//! For tests of strategies: a round in memory, without a coordinator.

use std::collections::BTreeMap;

use super::{
    AggregateContext, FederatedStrategy, RoundPlan, StrategyError, Version, VersionSink, aggregate,
};
use crate::{
    ids::{ModelVersion, RoundId},
    parameters::{BlockError, BlockWriter, Parameters},
    report::{Report, Serial},
    settings::TrainingSettings,
};

/// Has folds do without AVX-512 from now on, or use it again, in all of this process: for benchmarks of CPUs that lack it.
#[cfg(feature = "testing")]
pub fn without_avx512(narrow: bool) {
    super::kernel::NARROW.store(narrow, std::sync::atomic::Ordering::Relaxed);
}

/// The next global model that a strategy without a state makes of this one and these reports, in client order.
///
/// # Errors
///
/// What the strategy says.
pub fn next_model(
    strategy: &dyn FederatedStrategy,
    global: &Parameters,
    reports: &[Report],
) -> Result<Parameters, StrategyError> {
    let numbers = BTreeMap::new();
    let version = Version {
        number: ModelVersion(0),
        model: global,
        states: &[],
        numbers: &numbers,
    };
    let clients = reports.iter().map(|report| report.client);
    let plan = RoundPlan::new(clients, TrainingSettings::default());
    let context = AggregateContext::new(RoundId(1), &plan, reports, version, &Serial)?;
    let mut next = Memory(Parameters::zeros(global.layout().clone()));
    aggregate(strategy, context, &mut next)?;
    Ok(next.0)
}

struct Memory(Parameters);

impl VersionSink for Memory {
    fn write(&mut self, offset: usize, values: &[f32]) -> Result<(), BlockError> {
        self.0.write(offset, values)
    }

    fn write_state(&mut self, state: usize, _: usize, _: &[f32]) -> Result<(), BlockError> {
        let (range, len) = (state..state + 1, 0);
        Err(BlockError::OutOfRange { range, len })
    }
}
