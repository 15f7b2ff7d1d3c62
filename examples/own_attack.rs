//! An attack of your own against FedAvg on digits: `cargo run --release --example own_attack`.
//!
//! The attackers pull the global model towards zero. Another aggregation is one line: `job.strategy`.

use std::{error::Error, sync::Arc};

use fedavg::{
    BurnTrainers, DeviceSpec, JobSpec, Simulation,
    attack::{Attack, AttackRound, Attackers, AttackingClients},
    worker::{LocalUpdate, TrainError, TrainerFactory},
};

// The attack: from here ...
/// Takes back a part of what was learnt: sends `-strength * global`.
struct Eraser {
    strength: f64,
}

impl Attack for Eraser {
    fn update(&self, update: &mut LocalUpdate, round: &AttackRound<'_>) -> Result<(), TrainError> {
        let global = round.global.values();
        // The second argument is the attacker's honest change, which this attack does not use.
        round.send(update, |place, _honest| {
            -self.strength * f64::from(global[place])
        });
        Ok(())
    }
}
// ... to here.

fn accuracy(job: JobSpec, trainers: Arc<dyn TrainerFactory>) -> Result<f64, Box<dyn Error>> {
    let result = Simulation::new(job, trainers).workers(2).run()?;
    let last = result.rounds.last().ok_or("no round")?;
    Ok(100.0 * last.test_accuracy.unwrap_or_default())
}

fn main() -> Result<(), Box<dyn Error>> {
    let honest = Arc::new(BurnTrainers::new(DeviceSpec::Cpu)?);
    let mut job = JobSpec::new("mlp", "digits");
    job.clients = Some(10);
    job.rounds = 10;
    job.training.lr = 0.1;

    let attack = Arc::new(Eraser { strength: 4.0 });
    let who = AttackingClients::Fraction(0.2);
    let attackers = Attackers::new(&job, attack, &who, honest.clone())?;
    let names: Vec<_> = attackers
        .clients()
        .iter()
        .map(|client| client.to_string())
        .collect();
    println!("clients {} of 10 attack", names.join(" and "));

    println!(
        "test accuracy {:.1} % without them",
        accuracy(job.clone(), honest)?
    );
    println!(
        "test accuracy {:.1} % with them",
        accuracy(job, Arc::new(attackers))?
    );
    Ok(())
}
