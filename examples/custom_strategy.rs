//! A strategy of your own with settings and a state: FedExP (Jhunjhunwala et al., "FedExP: Speeding Up Federated Averaging via
//! Extrapolation", ICLR 2023, <https://arxiv.org/abs/2301.09604>). The more the clients' deltas disagree, the further the server
//! goes along their mean.
//!
//! `cargo run --release --example custom_strategy`

use std::{error::Error, sync::Arc};

use fedavg::{
    backend::DeviceSpec,
    job::{JobSpec, StrategySpec},
    parameters::Role,
    simulation::Simulation,
    strategy::{
        AggregateContext, Aggregation, FedAvg, FederatedStrategy, Inputs, NextVersion,
        RoundContext, RoundPlan, StateSpec, StrategyError,
    },
    worker::BurnTrainers,
};
use serde::Deserialize;
use serde_json::{Value, json};

// The strategy: from here ...
/// The settings of the job's strategy.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FedExp {
    /// The longest step, as a multiple of the mean delta.
    longest: f64,
}

impl FederatedStrategy for FedExp {
    /// The last step belongs to a model version, so a round that fails does not touch it.
    fn state(&self) -> StateSpec {
        StateSpec::default().number("step", 1.0)
    }

    fn plan(&self, round: &RoundContext<'_>) -> Result<RoundPlan, StrategyError> {
        FedAvg::default().plan(round)
    }

    fn aggregate(
        &self,
        round: &AggregateContext<'_>,
        next: &mut NextVersion<'_>,
    ) -> Result<Aggregation, StrategyError> {
        let inputs = Inputs::by_examples(round);
        // The mean of the squared norms, and the squared norm of the mean.
        let norms = round.scan(&inputs, 2, &|rows, sums| {
            let mut delta = vec![0.0; rows.len()];
            for row in 0..rows.count() {
                rows.read("delta", row, &mut delta);
                let squares: f64 = delta.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
                sums[0] += rows.coefficient(row) / inputs.total() * squares;
            }
            sums[1] += rows.mean("delta").iter().map(|x| x * x).sum::<f64>();
        })?;
        let step = (norms[0] / (2.0 * norms[1] + 1e-12)).clamp(1.0, self.longest);
        next.set("step", step);
        next.fold(&inputs, &|rows, out| {
            if rows.role() == Role::Buffer {
                return out.add_mean(rows, "delta"); // Statistics are averaged, never extrapolated.
            }
            for (value, delta) in out.model().iter_mut().zip(rows.mean("delta").iter()) {
                *value = (f64::from(*value) + step * delta) as f32;
            }
        })?;
        let mut aggregation = Aggregation::new(inputs.clients(), inputs.total());
        aggregation.metrics.insert("step".to_string(), step);
        Ok(aggregation)
    }
}
// ... to here.

fn main() -> Result<(), Box<dyn Error>> {
    let trainers = Arc::new(BurnTrainers::new(DeviceSpec::Cpu)?);
    // In a job file: strategy = { kind = "custom", name = "fedexp", settings = { longest = 4.0 } }
    let settings = json!({ "longest": 4.0 });
    let settings = settings.as_object().cloned().unwrap_or_default();
    let mut job = JobSpec::new("mlp", "digits");
    job.clients = Some(8);
    job.rounds = 10;
    job.training.lr = 0.1;
    job.strategy = StrategySpec::custom("fedexp", settings);
    let result = Simulation::new(job, trainers)
        .workers(2)
        .strategy(|_, settings| {
            let strategy: FedExp = serde_json::from_value(Value::Object(settings.clone()))?;
            Ok(strategy)
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
