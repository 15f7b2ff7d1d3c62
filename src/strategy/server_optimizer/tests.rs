use std::sync::Arc;

use super::*;
use crate::{
    ids::{ClientId, ModelVersion, RoundId},
    parameters::{Layout, Parameters, Role},
    report::{DELTA, Report, ReportMetadata},
    strategy::{Composition, testing::next_model},
};

/// The model that a client's delta makes of one value.
fn moved(optimizer: impl ServerOptimizer + 'static, delta: f32) -> f32 {
    moved_from(1.0, optimizer, delta)
}

fn moved_from(start: f32, optimizer: impl ServerOptimizer + 'static, delta: f32) -> f32 {
    let layout = Layout::new([("w".to_string(), vec![1], Role::Trainable)]).unwrap();
    let of = |value| Parameters::new(layout.clone(), vec![value]).unwrap();
    let metadata = ReportMetadata::new(ModelVersion(0), 1);
    let payloads = vec![(DELTA.to_string(), Arc::new(of(delta)) as _)];
    let report = Report::new(ClientId(0), RoundId(1), metadata, payloads);
    let strategy = Composition::default().optimizer(optimizer);
    next_model(&strategy, &of(start), &[report])
        .unwrap()
        .values()[0]
}

#[test]
fn a_rate_of_one_adds_the_mean_to_the_bit() {
    for delta in [0.1, -0.7, 1e-9, 3e7] {
        assert_eq!(moved(Sgd::new(1.0), delta), (1.0 + f64::from(delta)) as f32);
        assert_eq!(moved(Sgd::new(0.0), delta), 1.0);
        assert_eq!(
            moved(Momentum::new(1.0, 0.9), delta),
            moved(Sgd::new(1.0), delta)
        );
    }
}

/// Flower's published test of FedAdagrad (src/py/flwr/server/strategy/fedadagrad_test.py at 0eb6b87): from 0.1, two clients with
/// as many examples end at 0.2 and 1.0, and the next model is 0.15. Flower's second moment begins with 0.
#[test]
fn adagrad_is_what_flowers_test_expects() {
    let settings = Adaptive {
        initial_v: 0.0,
        ..Adaptive::new(0.1, 0.5, 0.0)
    };
    let found = moved_from(0.1, Adagrad::new(settings), 0.5);
    assert!((found - 0.15).abs() < 1e-7, "{found}");
}

#[test]
fn yogi_does_not_move_its_second_moment_if_it_is_the_square() {
    let settings = Adaptive {
        initial_v: 0.25,
        ..Adaptive::new(0.1, 0.5, 0.0)
    };
    // v = 0.25 and the squared delta are equal, so v stays: 1 + 0.1 * 0.5 / (0.5 + 0.5).
    assert_eq!(moved(Yogi::new(settings, 0.9), 0.5), 1.05);
}
