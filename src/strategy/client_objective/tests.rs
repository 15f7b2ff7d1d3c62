use std::{collections::BTreeMap, sync::Arc};

use super::*;
use crate::{
    ids::{ClientId, ModelVersion, RoundId},
    parameters::{Layout, Parameters, Role},
    report::{DELTA, Report, ReportMetadata, Serial},
    settings::OptimizerKind,
    strategy::{Aggregation, ClientInfo, Composition, sampler::Poisson, testing::MemoryRounds},
};

fn one(value: f32) -> Parameters {
    let layout = Layout::new([("w".to_string(), vec![1], Role::Trainable)]).unwrap();
    Parameters::new(layout, vec![value]).unwrap()
}

/// A round in which each client has a delta of 1, and reports these steps and this loss.
fn round(
    objective: impl ClientObjective + 'static,
    said: &[(u64, f32)],
) -> Result<(f32, Aggregation), StrategyError> {
    let strategy = Arc::new(Composition::default().objective(objective));
    let clients: Vec<_> = (0..said.len() as u32)
        .map(|id| ClientInfo::new(ClientId(id), 10))
        .collect();
    let training = TrainingSettings {
        momentum: 0.0,
        ..TrainingSettings::default()
    };
    let mut rounds = MemoryRounds::new(strategy, one(0.0), clients, training)?;
    let plan = rounds.plan(RoundId(1))?;
    let reports = said.iter().zip(0..).map(|((steps, loss), client)| {
        let mut metadata = ReportMetadata::new(ModelVersion(0), 10);
        metadata.steps = *steps;
        let payloads = vec![
            (DELTA.to_string(), Arc::new(one(1.0)) as _),
            ("loss_before".to_string(), Arc::new(one(*loss)) as _),
        ];
        Report::new(ClientId(client), RoundId(1), metadata, payloads)
    });
    let reports: Vec<_> = reports.collect();
    let aggregation = rounds.aggregate(RoundId(1), &plan, &reports, &Serial)?;
    Ok((rounds.model().values()[0], aggregation))
}

#[test]
fn a_report_that_says_what_can_not_be_is_excluded_and_the_others_count() {
    let (moved, aggregation) = round(FedNova::default(), &[(5, 0.0), (0, 0.0), (5, 0.0)]).unwrap();
    assert_eq!(moved, 1.0);
    assert_eq!(aggregation.folded, [ClientId(0), ClientId(2)]);
    let excluded = vec![(ClientId(1), "says that it trained in 0 steps".to_string())];
    assert_eq!(aggregation.excluded, excluded);
    // However many steps a client claims: a finite model.
    let (moved, _) = round(FedNova::default(), &[(5, 0.0), (u64::MAX, 0.0)]).unwrap();
    assert!(moved.is_finite());

    let said = [
        (1, 0.5),
        (1, f32::NAN),
        (1, -1.0),
        (1, 0.0),
        (1, f32::INFINITY),
    ];
    let (moved, aggregation) = round(QFedAvg::new(0.5), &said).unwrap();
    assert!(moved > 0.0 && moved < 1.0, "{moved}");
    assert_eq!(aggregation.folded, [ClientId(0)]);
    assert_eq!(aggregation.excluded.len(), 4);
}

#[test]
fn a_claimed_loss_counts_as_at_most_a_multiple_of_the_median() {
    let honest = [(1, 0.5), (1, 0.4), (1, 0.6)];
    let counts = |loss| {
        let (_, aggregation) =
            round(QFedAvg::new(1.0), &[&honest[..], &[(1, loss)]].concat()).unwrap();
        aggregation.metrics.get("bounded_losses").copied()
    };
    // The lower median of all four is 0.5.
    assert_eq!(counts(50.0), None);
    assert_eq!(counts(50.1), Some(1.0));
    let moved = |loss| {
        round(QFedAvg::new(1.0), &[&honest[..], &[(1, loss)]].concat())
            .unwrap()
            .0
    };
    assert_eq!(moved(1e38), moved(50.0));
    assert_ne!(moved(49.0), moved(50.0));
}

/// A round of a cohort that has no client.
fn poisson_round_without_anybody(objective: impl ClientObjective + 'static) -> (f32, Aggregation) {
    let strategy = Composition::default()
        .sampler(Poisson::new(1e-9))
        .objective(objective);
    let clients = vec![ClientInfo::new(ClientId(0), 10)];
    let training = TrainingSettings::default();
    let mut rounds = MemoryRounds::new(Arc::new(strategy), one(0.0), clients, training).unwrap();
    let plan = rounds.plan(RoundId(1)).unwrap();
    assert_eq!((plan.members.len(), plan.goal, plan.quorum), (0, 0, 0));
    let aggregation = rounds.aggregate(RoundId(1), &plan, &[], &Serial).unwrap();
    (rounds.model().values()[0], aggregation)
}

#[test]
fn without_any_report_left_the_model_stays() {
    for (moved, aggregation) in [
        round(FedNova::default(), &[(0, 0.0)]).unwrap(),
        round(QFedAvg::new(1.0), &[(1, 0.0)]).unwrap(),
        poisson_round_without_anybody(Plain),
        poisson_round_without_anybody(FedDyn::new(0.1)),
    ] {
        assert_eq!((moved, aggregation.folded), (0.0, Vec::new()));
    }
}

#[test]
fn what_does_not_go_with_an_objective_is_said() {
    let check = |objective: &dyn ClientObjective, change: fn(&mut TrainingSettings)| {
        let mut training = TrainingSettings::default();
        change(&mut training);
        objective.check(&training)
    };
    let adam = |training: &mut TrainingSettings| training.optimizer = OptimizerKind::Adam;
    assert!(
        check(&Scaffold, adam)
            .unwrap_err()
            .contains("needs training.optimizer \"sgd\"")
    );
    assert!(
        check(&FedNova::default(), adam)
            .unwrap_err()
            .contains("needs training.optimizer \"sgd\"")
    );
    assert!(check(&Plain, adam).is_ok());
    assert!(check(&Scaffold, |training| training.lr = 0.0).is_err());
    assert!(check(&FedNova::default(), |training| training.momentum = 1.0).is_err());
    assert!(
        check(&FedNova::new(0.1), |_| ())
            .unwrap_err()
            .contains("momentum")
    );
    assert!(check(&FedNova::new(0.1), |training| training.momentum = 0.0).is_ok());
}

#[test]
fn workers_are_told_what_they_need() {
    let none = BTreeMap::new();
    assert_eq!(Proximal::new(0.0).objective(&none), Objective::Plain);
    assert_eq!(
        FedNova::new(0.1).objective(&none),
        Objective::Proximal { mu: 0.1 }
    );
    assert_eq!(Scaffold.sends(), ["control"]);
    assert_eq!(Scaffold.expects()[0].name, "control");
    assert!(Scaffold.state().tensors[0].offered);
    assert_eq!(QFedAvg::new(1.0).expects()[0].name, "loss_before");
}

/// Four rounds of one client, whose control changes by 1 in each. In the rounds `lost`, it says that its state was lost.
fn controls(objective: impl ClientObjective + 'static, lost: &[u64]) -> Vec<(f32, Objective)> {
    let tensor = objective.state().tensors[0].name.clone();
    let strategy = Arc::new(Composition::default().objective(objective));
    let clients = vec![ClientInfo::new(ClientId(0), 10)];
    let training = TrainingSettings::default();
    let mut rounds = MemoryRounds::new(strategy, one(0.0), clients, training).unwrap();
    let mut seen = Vec::new();
    for round in 1..=4 {
        let plan = rounds.plan(RoundId(round)).unwrap();
        let mut metadata = ReportMetadata::new(ModelVersion(round - 1), 10);
        metadata.state_lost = lost.contains(&round);
        let payloads = vec![
            (DELTA.to_string(), Arc::new(one(1.0)) as _),
            ("control".to_string(), Arc::new(one(1.0)) as _),
        ];
        let report = Report::new(ClientId(0), RoundId(round), metadata, payloads);
        rounds
            .aggregate(RoundId(round), &plan, &[report], &Serial)
            .unwrap();
        seen.push((rounds.state(&tensor).unwrap().values()[0], plan.objective));
    }
    seen
}

#[test]
fn after_a_client_lost_its_state_all_restart() {
    let scaffold = |restarts| Objective::Scaffold { restarts };
    let expected = [
        (1.0, scaffold(0)),
        (0.0, scaffold(0)),
        (1.0, scaffold(1)),
        (2.0, scaffold(1)),
    ];
    assert_eq!(controls(Scaffold, &[2]), expected);
    let feddyn = |restarts| Objective::FedDyn {
        alpha: 0.5,
        restarts,
    };
    let expected = [
        (-0.5, feddyn(0)),
        (-1.0, feddyn(0)),
        (0.0, feddyn(0)),
        (-0.5, feddyn(1)),
    ];
    assert_eq!(controls(FedDyn::new(0.5), &[3]), expected);
}
