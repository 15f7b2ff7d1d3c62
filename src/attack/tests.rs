mod digits;
mod jobs;
mod liars;
mod reference;
mod rounds;

use std::sync::Arc;

use super::*;
use crate::{backend::DeviceSpec, job::JobSpec, worker::BurnTrainers};

/// `mlp` on digits, with settings with which it learns within a few rounds.
fn digits_job(clients: u32, rounds: u32) -> JobSpec {
    let mut job = JobSpec::new("mlp", "digits");
    (job.clients, job.rounds) = (Some(clients), rounds);
    (job.training.lr, job.training.local_epochs) = (0.1, 2.0);
    job
}

fn digits_trainers() -> Arc<BurnTrainers> {
    Arc::new(BurnTrainers::new(DeviceSpec::Cpu).unwrap())
}

/// The attack that a user asks for by this text and these parameters.
fn made(text: &str, settings: &[(&str, f64)]) -> (Arc<dyn Attack>, AttackSpec) {
    let mut spec: AttackSpec = text.parse().unwrap();
    for (key, value) in settings {
        spec = spec.with(*key, *value);
    }
    (Attacks::default().make(&spec).unwrap(), spec)
}
