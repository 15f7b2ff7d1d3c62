//! A strategy of one's own: federated averaging with server momentum (FedAvgM, Hsu et al. 2019,
//! <https://arxiv.org/abs/1909.06335>), as FedAvg with one more step behind it.
//!
//! The velocity has the size of the model and must survive between rounds, so it is exported and imported: the
//! coordinator takes it back to the last commit when a round fails.
//!
//! `cargo run --release --example custom_strategy`

use std::{collections::BTreeMap, error::Error, sync::Arc};

use fedavg::{
    backend::DeviceSpec,
    job::JobSpec,
    parameters::{BlockReader, BlockWriter, Parameters},
    report::Reports,
    simulation::Simulation,
    strategy::{
        Aggregation, FedAvg, FederatedStrategy, RoundContext, RoundPlan, RoundRng, StrategyError,
        StrategyState,
    },
    worker::BurnTrainers,
};

const VELOCITY: &str = "velocity";

/// FedAvg, then `velocity = momentum * velocity + mean delta` and `next = global + velocity`.
struct ServerMomentum {
    inner: FedAvg,
    momentum: f32,
    velocity: Option<Arc<Parameters>>,
}

impl FederatedStrategy for ServerMomentum {
    fn plan(
        &mut self,
        round: &RoundContext<'_>,
        rng: &mut RoundRng,
    ) -> Result<RoundPlan, StrategyError> {
        self.inner.plan(round, rng)
    }

    fn aggregate(
        &mut self,
        global: &dyn BlockReader,
        reports: &Reports<'_>,
        next: &mut dyn BlockWriter,
    ) -> Result<Aggregation, StrategyError> {
        let layout = global.layout();
        let mut averaged = Parameters::zeros(layout.clone());
        let aggregation = self.inner.aggregate(global, reports, &mut averaged)?;
        let mut model = Parameters::zeros(layout.clone());
        global.read(0, model.values_mut())?;
        let mut velocity = averaged
            .into_delta(&model)
            .map_err(|error| StrategyError::Aggregate(error.to_string()))?;
        if let Some(last) = &self.velocity {
            let rows = velocity.values_mut().iter_mut().zip(last.values());
            rows.for_each(|(velocity, last)| *velocity += self.momentum * last);
        }
        let rows = model.values_mut().iter_mut().zip(velocity.values());
        rows.for_each(|(model, velocity)| *model += velocity);
        next.write(0, model.values())?;
        self.velocity = Some(Arc::new(velocity));
        Ok(aggregation)
    }

    fn export_state(&self) -> StrategyState {
        let velocity = self
            .velocity
            .iter()
            .map(|velocity| (VELOCITY.to_string(), velocity.clone()));
        StrategyState {
            numbers: BTreeMap::new(),
            parameters: velocity.collect(),
        }
    }

    fn import_state(&mut self, mut state: StrategyState) -> Result<(), StrategyError> {
        self.velocity = state.parameters.remove(VELOCITY);
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let trainers = Arc::new(BurnTrainers::new(DeviceSpec::Cpu)?);
    let job = JobSpec {
        clients: Some(8),
        rounds: 10,
        ..JobSpec::default()
    };
    let result = Simulation::new(job, trainers)
        .workers(2)
        .strategy(|_| {
            Box::new(ServerMomentum {
                inner: FedAvg::default(),
                momentum: 0.5,
                velocity: None,
            })
        })
        .run()?;
    for round in &result.rounds {
        let accuracy = round.test_accuracy.unwrap_or_default();
        println!(
            "round {}: test accuracy {:.1} %",
            round.round,
            100.0 * accuracy
        );
    }
    Ok(())
}
