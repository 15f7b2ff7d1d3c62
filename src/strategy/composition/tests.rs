//! Every strategy against `scripts/strategy_reference.py`, which computes small rounds from the papers' formulas.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    ids::{ClientId, ModelVersion, RoundId},
    parameters::{Layout, Parameters, Role},
    report::{Report, ReportMetadata, Serial},
    settings::TrainingSettings,
    strategy::{Catalogue, ClientInfo, PartKind, testing::MemoryRounds},
};
use std::sync::Arc;

const FIXTURE: &str = include_str!("../../../tests/fixtures/strategies.json");

#[derive(Deserialize)]
struct Case {
    kind: String,
    settings: Map<String, Value>,
    training: TrainingSettings,
    examples: Vec<u64>,
    trainable: usize,
    initial: Vec<f32>,
    rounds: Vec<Round>,
    control: Option<Vec<f64>>,
}

#[derive(Deserialize)]
struct Round {
    reports: Vec<Sent>,
    model: Vec<f64>,
}

#[derive(Deserialize)]
struct Sent {
    client: u32,
    examples: u64,
    steps: u64,
    delta: Vec<f32>,
    control: Vec<f32>,
    loss_before: f32,
}

fn tensor(values: Vec<f32>) -> Parameters {
    let layout = Layout::new([("loss".to_string(), vec![values.len()], Role::Trainable)]);
    Parameters::new(layout.unwrap(), values).unwrap()
}

fn close(found: impl IntoIterator<Item = f32>, expected: &[f64], what: &str) {
    let mut count = 0;
    for (found, expected) in found.into_iter().zip(expected) {
        count += 1;
        // The model is kept in f32, whose rounding is 6e-8 of a value.
        let distance = (f64::from(found) - expected).abs();
        assert!(
            distance <= 1e-6 * expected.abs().max(1.0),
            "{what}: {found} and not {expected}"
        );
    }
    assert_eq!(count, expected.len(), "{what}");
}

impl Case {
    fn layout(&self) -> Arc<Layout> {
        let buffers = self.initial.len() - self.trainable;
        Layout::new([
            (
                "a.weight".to_string(),
                vec![self.trainable],
                Role::Trainable,
            ),
            ("b.running_mean".to_string(), vec![buffers], Role::Buffer),
        ])
        .unwrap()
    }

    fn report(&self, round: RoundId, sent: &Sent) -> Report {
        let layout = self.layout();
        let mut metadata = ReportMetadata::new(ModelVersion(round.0 - 1), sent.examples);
        metadata.steps = sent.steps;
        let delta = Parameters::new(layout.clone(), sent.delta.clone()).unwrap();
        // Zeros for buffers, which the payload does not have.
        let mut control = sent.control.clone();
        control.resize(layout.len(), 0.0);
        let control = Parameters::new(layout, control).unwrap();
        let loss = tensor(vec![sent.loss_before]);
        let payloads = vec![
            ("delta".to_string(), Arc::new(delta) as _),
            ("control".to_string(), Arc::new(control) as _),
            ("loss_before".to_string(), Arc::new(loss) as _),
        ];
        Report::new(ClientId(sent.client), round, metadata, payloads)
    }
}

#[test]
fn every_strategy_is_what_its_paper_says() {
    let cases: Vec<Case> = serde_json::from_str(FIXTURE).unwrap();
    let catalogue = Catalogue::default();
    for case in &cases {
        let name = format!("{} {:?}", case.kind, case.settings);
        let strategy = Arc::new(catalogue.make(&case.kind, &case.settings).unwrap());
        let clients = case.examples.iter().zip(0..);
        let clients = clients.map(|(examples, id)| ClientInfo::new(ClientId(id), *examples));
        let initial = Parameters::new(case.layout(), case.initial.clone()).unwrap();
        let mut rounds =
            MemoryRounds::new(strategy, initial, clients.collect(), case.training.clone()).unwrap();
        for (round, number) in case.rounds.iter().zip(1..) {
            let number = RoundId(number);
            let mut plan = rounds.plan(number).unwrap();
            let reports = round.reports.iter().map(|sent| case.report(number, sent));
            let reports: Vec<Report> = reports.collect();
            plan.goal = reports.len();
            let aggregation = rounds.aggregate(number, &plan, &reports, &Serial).unwrap();
            assert_eq!(aggregation.folded.len(), reports.len(), "{name}");
            let values = rounds.model().values().iter().copied();
            close(values, &round.model, &format!("{name}, round {number}"));
        }
        if let Some(control) = &case.control {
            let found = rounds.state("control").unwrap().values();
            close(found[..case.trainable].iter().copied(), control, &name);
        }
    }
    // All presets are in the fixture, but for those of reducers, which have one of their own.
    for preset in catalogue.presets() {
        if preset.part(PartKind::Reducer) != "mean" {
            continue;
        }
        assert!(
            cases.iter().any(|case| case.kind == preset.name),
            "{}",
            preset.name
        );
    }
}
