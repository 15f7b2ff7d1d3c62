//! Every reducer against `scripts/reducer_reference.py`, which computes small rounds from the papers' formulas.

mod needs;
mod values;

use std::{collections::BTreeMap, sync::Arc};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    coordinator::Threads,
    ids::{ClientId, ModelVersion, RoundId},
    parameters::{BlockReader, Layout, Parameters, Role},
    report::{DELTA, Executor, Report, ReportMetadata, Serial},
    settings::TrainingSettings,
    strategy::{
        Aggregation, Catalogue, ClientInfo, FederatedStrategy, PartKind, RoundPlan,
        testing::MemoryRounds,
    },
};

const FIXTURE: &str = include_str!("../../../tests/fixtures/reducers.json");

#[derive(Deserialize)]
struct Fixture {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    rule: String,
    settings: Map<String, Value>,
    about: String,
    rounds: Vec<Round>,
}

#[derive(Deserialize)]
struct Round {
    weights: Vec<u64>,
    reports: Vec<Vec<f64>>,
    update: Vec<f64>,
    selected: Option<Vec<u32>>,
    state: Option<BTreeMap<String, Value>>,
}

impl Case {
    /// The case's settings by this crate's names.
    fn settings(&self) -> Map<String, Value> {
        let mut settings = Map::new();
        for (name, value) in &self.settings {
            let (name, value) = match name.as_str() {
                "c" => ("bound", value.clone()),
                "tau" => ("radius", value.clone()),
                "nu" => ("smoothing", value.clone()),
                "norm" => ("euclidean", json!(value == "l2")),
                name => (name, value.clone()),
            };
            settings.insert(name.to_string(), value);
        }
        // Rules of which the fixture's weights are examples.
        settings.insert("reducer".to_string(), json!(self.rule));
        settings
    }

    fn check(&self, executor: &dyn Executor) {
        let name = format!("{}: {}", self.rule, self.about);
        let strategy = Catalogue::default().make("fedavg", &self.settings());
        let strategy = strategy.unwrap_or_else(|error| panic!("{name}: {error}"));
        let values = self.rounds[0].update.len();
        let layout = layout(values);
        let clients = (0..self.rounds[0].reports.len() as u32)
            .map(|client| ClientInfo::new(ClientId(client), 1));
        let mut rounds = MemoryRounds::new(
            Arc::new(strategy),
            Parameters::zeros(layout.clone()),
            clients.collect(),
            TrainingSettings::default(),
        )
        .unwrap();
        let mut model = vec![0.0; values];
        for (index, round) in self.rounds.iter().enumerate() {
            let number = RoundId(index as u64 + 1);
            let plan = rounds.plan(number).unwrap();
            let reports = round.reports(number, &layout);
            let aggregation = rounds.aggregate(number, &plan, &reports, executor).unwrap();
            round.check(&name, &aggregation, &rounds, &mut model);
        }
    }
}

fn layout(values: usize) -> Arc<Layout> {
    Layout::new([("w".to_string(), vec![values], Role::Trainable)]).unwrap()
}

fn report(round: RoundId, client: u32, examples: u64, delta: Parameters) -> Report {
    let metadata = ReportMetadata::new(ModelVersion(round.0 - 1), examples);
    let delta: Arc<dyn BlockReader + Send + Sync> = Arc::new(delta);
    Report::new(
        ClientId(client),
        round,
        metadata,
        vec![(DELTA.to_string(), delta)],
    )
}

impl Round {
    fn reports(&self, round: RoundId, layout: &Arc<Layout>) -> Vec<Report> {
        let mut reports = Vec::new();
        for (client, (values, weight)) in self.reports.iter().zip(&self.weights).enumerate() {
            let values = values.iter().map(|value| *value as f32).collect();
            let delta = Parameters::new(layout.clone(), values).unwrap();
            reports.push(report(round, client as u32, *weight, delta));
        }
        reports
    }

    fn check(
        &self,
        name: &str,
        aggregation: &Aggregation,
        rounds: &MemoryRounds,
        model: &mut [f64],
    ) {
        for ((value, update), found) in model
            .iter_mut()
            .zip(&self.update)
            .zip(rounds.model().values())
        {
            let before = *value;
            *value += update;
            // The model is kept in f32, whose rounding is 6e-8 of a value.
            let scale = value.abs().max(before.abs()).max(1.0);
            assert!(
                (f64::from(*found) - *value).abs() <= 1e-6 * scale,
                "{name}: {found} and not {value}"
            );
            // The next round begins with what is kept.
            *value = f64::from(*found);
        }
        if let Some(selected) = &self.selected {
            let folded: Vec<_> = aggregation.folded.iter().map(|client| client.0).collect();
            assert_eq!(folded, *selected, "{name}");
            assert_eq!(
                folded.len() + aggregation.excluded.len(),
                self.reports.len(),
                "{name}"
            );
        }
        let Some(state) = &self.state else { return };
        if let Some(threshold) = state.get("threshold").and_then(Value::as_f64) {
            let found = aggregation.metrics["norm_bound"];
            assert!(
                (found - threshold).abs() <= 1e-9 * threshold,
                "{name}: {found} and not {threshold}"
            );
        }
    }
}

#[test]
fn every_rule_equals_the_reference() {
    let fixture: Fixture = serde_json::from_str(FIXTURE).unwrap();
    let mut rules = BTreeMap::<_, usize>::new();
    for case in &fixture.cases {
        *rules.entry(case.rule.as_str()).or_default() += 1;
        case.check(&Serial);
    }
    assert_eq!(rules.len(), 9, "{rules:?}");
}

/// The names of all reducers.
fn reducers() -> Vec<String> {
    let catalogue = Catalogue::default();
    let infos = catalogue.parts(PartKind::Reducer);
    infos.into_iter().map(|info| info.name.clone()).collect()
}

/// Honest reports that are alike, and attackers' that are not; with buffers.
fn reports(order: &[usize]) -> (Arc<Layout>, Vec<Report>) {
    // Two blocks and a part of one.
    let layout = Layout::new([
        ("w".to_string(), vec![150_001], Role::Trainable),
        ("mean".to_string(), vec![77], Role::Buffer),
    ])
    .unwrap();
    let mut reports = Vec::new();
    for (client, source) in order.iter().enumerate() {
        let scale = if source % 5 == 4 { -40.0 } else { 1.0 };
        let value = |place: usize| {
            let own = ((place * 31 + source * 7919) % 1013) as f32 / 1013.0 - 0.5;
            scale * ((place % 17) as f32 / 17.0 + own) * 0.1
        };
        let values = (0..layout.len()).map(value).collect();
        let delta = Parameters::new(layout.clone(), values).unwrap();
        reports.push(report(
            RoundId(1),
            client as u32,
            10 + 3 * *source as u64,
            delta,
        ));
    }
    (layout, reports)
}

fn reduced(reducer: &str, order: &[usize], executor: &dyn Executor) -> (Vec<f32>, Vec<u32>) {
    let asked = json!({ "reducer": reducer });
    let strategy = Catalogue::default()
        .make("fedavg", asked.as_object().unwrap())
        .unwrap();
    let (layout, reports) = reports(order);
    let clients = (0..order.len() as u32)
        .map(|client| ClientInfo::new(ClientId(client), 1))
        .collect();
    let model = Parameters::zeros(layout);
    let mut rounds = MemoryRounds::new(
        Arc::new(strategy),
        model,
        clients,
        TrainingSettings::default(),
    )
    .unwrap();
    let plan: RoundPlan = rounds.plan(RoundId(1)).unwrap();
    let aggregation = rounds
        .aggregate(RoundId(1), &plan, &reports, executor)
        .unwrap();
    let folded = aggregation
        .folded
        .iter()
        .map(|client| order[client.0 as usize] as u32);
    let mut folded: Vec<_> = folded.collect();
    folded.sort_unstable();
    (rounds.model().values().to_vec(), folded)
}

#[test]
fn threads_change_no_bit() {
    let order: Vec<_> = (0..15).collect();
    for reducer in &reducers() {
        let (serial, _) = reduced(reducer, &order, &Serial);
        for threads in [2, 3] {
            let (found, _) = reduced(reducer, &order, &Threads::new(threads));
            assert!(serial == found, "{reducer} with {threads} threads");
        }
    }
}

#[test]
fn who_reported_what_changes_nothing_or_the_last_place() {
    let order: Vec<_> = (0..15).collect();
    let other: Vec<_> = (0..15).map(|place| (place * 4 + 3) % 15).collect();
    for reducer in &reducers() {
        let (first, folded) = reduced(reducer, &order, &Serial);
        let (second, also_folded) = reduced(reducer, &other, &Serial);
        assert_eq!(folded, also_folded, "{reducer}");
        let exact = matches!(
            reducer.as_str(),
            "median" | "trimmed_mean" | "krum" | "bulyan"
        );
        for (a, b) in first.iter().zip(&second) {
            let places = (i64::from(a.to_bits()) - i64::from(b.to_bits())).abs();
            assert!(
                places == 0 || (!exact && places <= 1),
                "{reducer}: {a} and {b}"
            );
        }
    }
}

#[test]
fn attackers_far_away_are_in_no_selection_and_move_no_robust_rule() {
    let order: Vec<_> = (0..15).collect();
    let honest: Vec<_> = order
        .iter()
        .copied()
        .filter(|client| client % 5 != 4)
        .collect();
    let (expected, _) = reduced("mean", &honest, &Serial);
    let distance = |values: &[f32]| {
        let squares = values
            .iter()
            .zip(&expected)
            .map(|(a, b)| f64::from(a - b).powi(2));
        squares.sum::<f64>().sqrt()
    };
    let (mean, _) = reduced("mean", &order, &Serial);
    for reducer in &reducers() {
        if matches!(reducer.as_str(), "mean" | "centered_clipping" | "zeroing") {
            continue;
        }
        let (found, folded) = reduced(reducer, &order, &Serial);
        assert!(
            distance(&found) < distance(&mean) / 5.0,
            "{reducer}: {} of {}",
            distance(&found),
            distance(&mean)
        );
        if matches!(reducer.as_str(), "krum" | "multi_krum" | "bulyan") {
            assert!(
                folded.iter().all(|client| client % 5 != 4),
                "{reducer}: {folded:?}"
            );
        }
    }
}
