//! What attacks do to FedAvg on digits.

use std::sync::OnceLock;

use super::*;
use crate::{
    data,
    job::StrategySpec,
    simulation::{Simulation, SimulationResult},
    worker::TrainerFactory,
};

const CLIENTS: u32 = 15;
const ROUNDS: u32 = 8;

fn run(job: JobSpec, trainers: Arc<dyn TrainerFactory>, workers: usize) -> SimulationResult {
    Simulation::new(job, trainers)
        .workers(workers)
        .run()
        .unwrap()
}

fn accuracy(result: &SimulationResult) -> f64 {
    let last = result.rounds.last().unwrap();
    last.test_accuracy.unwrap()
}

/// Digits with the poisoned data in their place.
fn trainers_of(dataset: data::Dataset) -> Arc<BurnTrainers> {
    let trainers = BurnTrainers::new(DeviceSpec::Cpu).unwrap();
    Arc::new(trainers.with_dataset("digits", dataset))
}

/// A run under attack.
fn attacked(text: &str, settings: &[(&str, f64)]) -> SimulationResult {
    attacked_by(text, settings, 2)
}

fn attacked_by(text: &str, settings: &[(&str, f64)], workers: usize) -> SimulationResult {
    attacked_in(digits_job(CLIENTS, ROUNDS), text, settings, workers)
}

fn attacked_in(
    job: JobSpec,
    text: &str,
    settings: &[(&str, f64)],
    workers: usize,
) -> SimulationResult {
    let (attack, spec) = made(text, settings);
    let honest = digits_trainers();
    let attackers = if attack.needs().poisoned_data {
        let poisoned = poisoned(&*attack, &data::digits().unwrap(), job.seed).unwrap();
        Attackers::with_poisoned(&job, attack, &spec.who, honest, trainers_of(poisoned))
    } else {
        Attackers::new(&job, attack, &spec.who, honest)
    };
    run(job, Arc::new(attackers.unwrap()), workers)
}

/// The accuracy without an attack. Computed once.
fn clean() -> f64 {
    static CLEAN: OnceLock<f64> = OnceLock::new();
    *CLEAN.get_or_init(|| {
        let result = run(digits_job(CLIENTS, ROUNDS), digits_trainers(), 2);
        accuracy(&result)
    })
}

/// What share of the triggered test images the model takes for the target.
fn backdoor_success(result: &SimulationResult) -> f64 {
    let goal = Backdoor::new(0)
        .goal(&data::digits().unwrap())
        .unwrap()
        .unwrap();
    let job = digits_job(CLIENTS, ROUNDS).description();
    success_rate(&*trainers_of(goal), &job, &result.model).unwrap()
}

#[test]
fn the_mean_breaks_under_a_few_attackers() {
    assert!(clean() > 0.9, "{}", clean());
    // 3 of 15: a mean stands still at a scale of 4.
    for (text, settings) in [
        ("sign_flip:0.2", &[("scale", 8.0)][..]),
        ("gaussian:0.2", &[("sigma", 1.0)]),
        ("ipm:0.2", &[("epsilon", 8.0)]),
    ] {
        let accuracy = accuracy(&attacked(text, settings));
        assert!(
            accuracy < clean() - 0.2,
            "{text}: {accuracy}, and {} without",
            clean()
        );
    }
}

#[test]
fn reducers_hold_where_the_mean_breaks() {
    for (text, settings) in [
        ("sign_flip:0.2", &[("scale", 8.0)][..]),
        ("gaussian:0.2", &[("sigma", 1.0)]),
        ("ipm:0.2", &[("epsilon", 8.0)]),
        ("backdoor:0.2", &[]),
    ] {
        for reducer in ["median", "trimmed_mean", "multi_krum", "geometric_median"] {
            let mut job = digits_job(CLIENTS, ROUNDS);
            job.strategy = StrategySpec::preset(reducer);
            let result = attacked_in(job, text, settings, 2);
            let (accuracy, success) = (accuracy(&result), backdoor_success(&result));
            assert!(
                accuracy > clean() - 0.1,
                "{text}: {accuracy} by {reducer}, and {} without",
                clean()
            );
            // It only bounds what an attacker moves, which is enough for a backdoor.
            if reducer != "geometric_median" {
                assert!(success < 0.5, "{text}: {success} by {reducer}");
            }
        }
    }
}

#[test]
fn a_backdoor_is_learnt_beside_the_digits() {
    let result = attacked("backdoor:0.2", &[]);
    let (success, accuracy) = (backdoor_success(&result), accuracy(&result));
    assert!(success > 0.8, "{success}");
    assert!(accuracy > 0.7, "{accuracy}");
    let without = run(digits_job(CLIENTS, ROUNDS), digits_trainers(), 2);
    let usual = backdoor_success(&without);
    assert!(usual < 0.3, "{usual}");
}

#[test]
fn labels_that_are_turned_round_by_most_clients_are_learnt() {
    let result = attacked("label_flip:0.8", &[]);
    assert!(accuracy(&result) < 0.3, "{}", accuracy(&result));
    // A few do little.
    assert!(accuracy(&attacked("label_flip:0.1", &[])) > clean() - 0.1);
}

#[test]
fn a_run_under_attack_is_the_same_with_one_worker_and_with_two() {
    for text in ["alie:0.4", "backdoor:0.2", "gaussian:0.2", "free_rider:0.2"] {
        let (one, two) = (attacked_by(text, &[], 1), attacked_by(text, &[], 2));
        assert_eq!(one.model.values(), two.model.values(), "{text}");
    }
}
