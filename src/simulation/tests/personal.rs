//! FedPer and adapter-only training on digits: clients with a head of their own, and a body that nobody trains.

use std::collections::BTreeMap;

use super::*;
use crate::{
    backend::DeviceSpec,
    job::JobSpec,
    parameters::{Parameters, Role},
    worker::{BurnTrainers, TrainerFactory},
};

/// Five clients with two labels each.
fn simulate(change: impl FnOnce(&mut JobSpec)) -> (SimulationResult, Parameters) {
    let trainers = BurnTrainers::new(DeviceSpec::Cpu).unwrap();
    let mut spec = JobSpec::new("mlp", "digits");
    spec.clients = Some(5);
    spec.rounds = 6;
    spec.training.lr = 0.05;
    spec.partition = "shard:2".parse().unwrap();
    change(&mut spec);
    let initial = trainers.initial(&spec.description()).unwrap();
    let run = Simulation::new(spec, Arc::new(trainers)).workers(2).run();
    (run.unwrap(), initial)
}

/// What each client answers right of its own examples while it trains.
fn accuracies(record: &crate::protocol::RoundRecord) -> BTreeMap<ClientId, f64> {
    let measured = record.by_client.iter();
    measured
        .map(|of| (of.client, of.metrics["train_accuracy"]))
        .collect()
}

#[test]
fn clients_with_a_head_of_their_own_learn_their_own_labels() {
    let (run, initial) = simulate(|spec| spec.personal = vec!["fc2.*".to_string()]);
    let (first, last) = (accuracies(&run.rounds[0]), accuracies(&run.rounds[5]));
    for (client, before) in &first {
        let after = last[client];
        assert!(
            after > *before && after > 0.95,
            "client {client}: {before} to {after}"
        );
    }
    for tensor in run.model.layout().tensors() {
        let is_initial = run.model.tensor(&tensor.name) == initial.tensor(&tensor.name);
        let is_personal = tensor.name.starts_with("fc2");
        assert_eq!(is_initial, is_personal, "{}", tensor.name);
        assert_eq!(tensor.role == Role::Frozen, is_personal, "{}", tensor.name);
    }
    // The clients evaluate it, each with its own head: none has its labels alone in its share.
    assert!(
        run.rounds
            .iter()
            .all(|record| record.test_accuracy.is_some())
    );
    assert!(run.rounds.iter().all(|record| record.state_lost.is_empty()));
    let (plain, _) = simulate(|_| {});
    let plain = accuracies(plain.rounds.last().unwrap());
    let mean = |of: &BTreeMap<ClientId, f64>| of.values().sum::<f64>() / of.len() as f64;
    assert!(mean(&last) > mean(&plain), "{last:?} {plain:?}");
}

#[test]
fn frozen_tensors_are_the_same_bits_at_the_end_and_sparse_reports_go_with_them() {
    for encoding in ["f32", "top_k:0.1"] {
        let (run, initial) = simulate(|spec| {
            spec.frozen = vec!["fc1.*".to_string()];
            spec.rounds = 3;
            spec.encoding.reports = encoding.parse().unwrap();
        });
        for tensor in run.model.layout().tensors() {
            let is_initial = run.model.tensor(&tensor.name) == initial.tensor(&tensor.name);
            assert_eq!(
                is_initial,
                tensor.name.starts_with("fc1"),
                "{}",
                tensor.name
            );
        }
        assert!(run.rounds[2].test_accuracy > run.rounds[0].test_accuracy);
    }
}

#[test]
fn the_same_bits_with_any_number_of_workers() {
    let of = |workers| {
        let trainers = BurnTrainers::new(DeviceSpec::Cpu).unwrap();
        let mut spec = JobSpec::new("tiny_cnn", "digits");
        spec.clients = Some(4);
        spec.rounds = 3;
        // FedBN, with the control variates of SCAFFOLD for all that is averaged.
        spec.personal = vec!["bn*".to_string()];
        spec.strategy = StrategySpec::preset("scaffold");
        let run = Simulation::new(spec, Arc::new(trainers)).workers(workers);
        let run = run.run().unwrap();
        let losses: Vec<_> = run.rounds.iter().map(|record| record.test_loss).collect();
        (run.model.values().to_vec(), losses)
    };
    let alone = of(1);
    assert!(alone.1.iter().all(Option::is_some), "{:?}", alone.1);
    assert_eq!(alone, of(3));
}
