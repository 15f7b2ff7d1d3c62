//! Filters with every preset: what is left out has no trace.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    coordinator::Threads,
    ids::{ClientId, ModelVersion, RoundId},
    parameters::{Layout, Parameters, Role},
    report::{DELTA, Executor, Report, ReportMetadata, Serial},
    settings::TrainingSettings,
    strategy::{Aggregation, Catalogue, ClientInfo, StrategyError, testing::MemoryRounds},
};

const CLIENTS: u32 = 15;
/// The clients whose updates are made large.
const LARGE: [u32; 2] = [4, 11];

fn layout() -> Arc<Layout> {
    // Two blocks and a part of one.
    let tensors = [
        ("w".to_string(), vec![140_001], Role::Trainable),
        ("mean".to_string(), vec![7], Role::Buffer),
    ];
    Layout::new(tensors).unwrap()
}

fn values(client: u32, salt: u32, scale: f32) -> Parameters {
    let layout = layout();
    let value = |place: usize| {
        let own = (place as u32 * 31 + client * 7919 + salt) % 1013;
        scale * (own as f32 / 1013.0 - 0.4)
    };
    let values = (0..layout.len()).map(value).collect();
    Parameters::new(layout, values).unwrap()
}

/// The report of a client, 1000 times as large as an honest one if it is one of [`LARGE`].
fn report(client: u32) -> Report {
    let scale = if LARGE.contains(&client) { 10.0 } else { 0.01 };
    let mut said = ReportMetadata::new(ModelVersion(0), 10 + u64::from(client));
    said.steps = 1 + u64::from(client % 3);
    let loss = Layout::new([("loss".to_string(), vec![1], Role::Trainable)]).unwrap();
    let loss = Parameters::new(loss, vec![0.5 + client as f32 / 10.0]).unwrap();
    let payloads = vec![
        (DELTA.to_string(), Arc::new(values(client, 0, scale)) as _),
        (
            "control".to_string(),
            Arc::new(values(client, 5, scale)) as _,
        ),
        ("loss_before".to_string(), Arc::new(loss) as _),
    ];
    Report::new(ClientId(client), RoundId(1), said, payloads)
}

struct Outcome {
    model: Parameters,
    states: Vec<Parameters>,
    aggregation: Aggregation,
}

/// What a preset makes of these clients' reports. The whole population was asked.
fn round(
    preset: &str,
    asked: &Value,
    clients: &[u32],
    executor: &dyn Executor,
) -> Result<Outcome, StrategyError> {
    let strategy = Catalogue::default().make(preset, asked.as_object().unwrap());
    let population = (0..CLIENTS).map(|client| ClientInfo::new(ClientId(client), 50));
    let training = TrainingSettings {
        momentum: 0.0,
        ..TrainingSettings::default()
    };
    let model = Parameters::zeros(layout());
    let strategy = Arc::new(strategy.unwrap());
    let mut rounds = MemoryRounds::new(strategy, model, population.collect(), training)?;
    let plan = rounds.plan(RoundId(1))?;
    let reports: Vec<_> = clients.iter().map(|client| report(*client)).collect();
    let aggregation = rounds.aggregate(RoundId(1), &plan, &reports, executor)?;
    Ok(Outcome {
        model: rounds.model().clone(),
        states: rounds.states().cloned().collect(),
        aggregation,
    })
}

fn all() -> Vec<u32> {
    (0..CLIENTS).collect()
}

fn honest() -> Vec<u32> {
    all()
        .into_iter()
        .filter(|client| !LARGE.contains(client))
        .collect()
}

fn excluded(aggregation: &Aggregation) -> Vec<u32> {
    let clients = aggregation.excluded.iter();
    clients.map(|(client, _)| client.0).collect()
}

#[test]
fn with_every_preset_it_is_as_if_what_is_left_out_had_never_been_accepted() {
    let filters = [
        json!({ "filter": { "kind": "norm", "max_norm": 10 } }),
        json!({ "filter": { "kind": "median_norm", "max_of_median": 3 } }),
    ];
    for preset in Catalogue::default().presets() {
        // It needs all of the fifteen reports.
        if preset.name == "bulyan" {
            continue;
        }
        let expected = round(preset.name, &json!({}), &honest(), &Serial).unwrap();
        let unfiltered = round(preset.name, &json!({}), &all(), &Serial).unwrap();
        for filter in &filters {
            let found = round(preset.name, filter, &all(), &Serial).unwrap();
            assert!(
                found.model.values() == expected.model.values(),
                "{} {filter}",
                preset.name
            );
            for (state, expected) in found.states.iter().zip(&expected.states) {
                assert!(
                    state.values() == expected.values(),
                    "{} {filter}",
                    preset.name
                );
            }
            assert_eq!(found.aggregation.folded, expected.aggregation.folded);
            for client in LARGE {
                assert!(
                    excluded(&found.aggregation).contains(&client),
                    "{}",
                    preset.name
                );
            }
            let threads = round(preset.name, filter, &all(), &Threads::new(3)).unwrap();
            assert!(
                threads.model.values() == found.model.values(),
                "{}",
                preset.name
            );
        }
        // Without the filter the two of them count, but for rules that leave them out or apart themselves.
        if preset.name == "fedavg" {
            assert!(unfiltered.model.values() != expected.model.values());
            assert!(excluded(&unfiltered.aggregation).is_empty());
        }
    }
}

#[test]
fn the_record_says_the_norm_and_the_bound() {
    let filter = json!({ "filter": "median_norm" });
    let found = round("fedavg", &filter, &all(), &Serial)
        .unwrap()
        .aggregation;
    assert_eq!(excluded(&found), LARGE);
    let reason = &found.excluded[0].1;
    assert!(reason.starts_with("norm bound: its norm is 11"), "{reason}");
    assert!(
        reason.contains(", above 5 times the round's median of 1.1"),
        "{reason}"
    );
    let filter = json!({ "filter": "norm", "max_norm": 2.5 });
    let found = round("fedavg", &filter, &all(), &Serial)
        .unwrap()
        .aggregation;
    assert_eq!(found.metrics["max_norm"], 2.5);
    assert!(
        found.excluded[1].1.ends_with(", above 2.5"),
        "{}",
        found.excluded[1].1
    );
}

#[test]
fn exclusions_of_a_filter_and_of_a_reducer_are_in_one_list_in_order() {
    let filter = json!({ "filter": "median_norm" });
    let found = round("multi_krum", &filter, &all(), &Serial).unwrap();
    let excluded = &found.aggregation.excluded;
    assert!(excluded.is_sorted_by(|a, b| a.0 < b.0), "{excluded:?}");
    let by_filter = excluded
        .iter()
        .filter(|(_, reason)| reason.starts_with("norm bound"));
    assert_eq!(by_filter.count(), 2);
    assert_eq!(
        excluded.len() + found.aggregation.folded.len(),
        CLIENTS as usize
    );
}

#[test]
fn a_reducer_that_needs_more_than_is_left_says_so() {
    // 4f + 3 of fifteen.
    let refused = round(
        "bulyan",
        &json!({ "filter": "median_norm" }),
        &all(),
        &Serial,
    );
    let reason = refused.err().unwrap().to_string();
    assert!(
        reason.contains("the filter leaves 13 of 15 reports, and the reducer needs at least 15"),
        "{reason}"
    );
    assert!(
        reason.contains("client 4, norm bound: its norm is 11"),
        "{reason}"
    );
}

#[test]
fn bounds_are_above_zero() {
    for (filter, key) in [("norm", "max_norm"), ("median_norm", "max_of_median")] {
        let asked = json!({ "filter": filter, key: 0 });
        let refused = Catalogue::default().make("fedavg", asked.as_object().unwrap());
        let expected = format!("strategy.{key} must be a number above 0, not 0");
        assert_eq!(refused.unwrap_err().to_string(), expected);
    }
}
