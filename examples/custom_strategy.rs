//! A strategy of one's own with settings and a state: FedAdam (Reddi et al., "Adaptive Federated Optimization", ICLR 2021,
//! <https://arxiv.org/abs/2003.00295>). The server's optimizer is Adam, and the mean delta is its negative gradient.
//!
//! `cargo run --release --example custom_strategy`

use std::{error::Error, sync::Arc};

use fedavg::{
    backend::DeviceSpec,
    job::{JobSpec, StrategySpec},
    parameters::Role,
    simulation::Simulation,
    strategy::{
        AggregateContext, Aggregation, FedAvg, FederatedStrategy, NextVersion, RoundContext,
        RoundPlan, StateSpec, StateTensor, StrategyError,
    },
    worker::BurnTrainers,
};
use serde::Deserialize;
use serde_json::{Value, json};

// The strategy: from here ...
/// The settings of the job's strategy.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FedAdam {
    server_lr: f64,
    #[serde(default)]
    tau: f64,
}

impl FederatedStrategy for FedAdam {
    /// Both moments have the model's shape. They belong to a model version, so a round that fails does not touch them.
    fn state(&self) -> StateSpec {
        let v = StateTensor::new("v").filled((self.tau * self.tau) as f32);
        StateSpec::default().tensor(StateTensor::new("m")).tensor(v)
    }

    fn plan(&self, round: &RoundContext<'_>) -> Result<RoundPlan, StrategyError> {
        FedAvg::default().plan(round)
    }

    fn aggregate(
        &self,
        round: &AggregateContext<'_>,
        next: &mut NextVersion<'_>,
    ) -> Result<Aggregation, StrategyError> {
        let inputs = FedAvg::default().inputs(round);
        next.fold(&inputs, &|rows, out| {
            if rows.role() == Role::Buffer {
                return out.add_mean(rows, "delta"); // Statistics are averaged, never optimized.
            }
            let mean = rows.mean("delta");
            let (model, [m, v]) = out.tensors(["m", "v"]);
            for i in 0..mean.len() {
                let first = 0.9 * f64::from(m[i]) + 0.1 * mean[i];
                let second = 0.99 * f64::from(v[i]) + 0.01 * mean[i] * mean[i];
                let step = self.server_lr * first / (second.sqrt() + self.tau);
                (m[i], v[i]) = (first as f32, second as f32);
                model[i] = (f64::from(model[i]) + step) as f32;
            }
        })?;
        Ok(Aggregation::new(inputs.clients(), inputs.total()))
    }
}
// ... to here.

fn main() -> Result<(), Box<dyn Error>> {
    let trainers = Arc::new(BurnTrainers::new(DeviceSpec::Cpu)?);
    // In a job file: strategy = { kind = "custom", name = "fedadam", settings = { server_lr = 0.02, tau = 0.001 } }
    let settings = json!({ "server_lr": 0.02, "tau": 0.001 });
    let settings = settings.as_object().cloned().unwrap_or_default();
    let mut job = JobSpec::new("mlp", "digits");
    job.clients = Some(8);
    job.rounds = 10;
    job.strategy = StrategySpec::custom("fedadam", settings);
    let result = Simulation::new(job, trainers)
        .workers(2)
        .strategy(|_, settings| {
            let strategy: FedAdam = serde_json::from_value(Value::Object(settings.clone()))?;
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
