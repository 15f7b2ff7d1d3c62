//! The curves in a run's records: a value for each round.

use std::collections::BTreeMap;

use crate::protocol::RoundRecord;

/// A metric by round.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cli) struct Series {
    /// `train_loss`, `test_accuracy`, `client/NAME`, …
    pub name: String,
    /// In order of rounds.
    pub points: Vec<Point>,
}

/// A metric of a round.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::cli) struct Point {
    pub round: u64,
    /// A finite number.
    pub value: f64,
}

/// All series of a run that have a value: the usual ones first, then further metrics by name.
pub(in crate::cli) fn series_of(rounds: &[RoundRecord]) -> Vec<Series> {
    let mut usual: Vec<Series> = Vec::new();
    let mut further: BTreeMap<String, Series> = BTreeMap::new();
    for record in rounds {
        let round = record.round.0;
        for (name, value) in usual_values(record) {
            let place = match usual.iter().position(|series| series.name == name) {
                Some(place) => place,
                None => {
                    usual.push(Series::named(name));
                    usual.len() - 1
                }
            };
            usual[place].add(round, value);
        }
        for (kind, metrics) in [
            ("validation", &record.validation_metrics),
            ("test", &record.test_metrics),
            ("round", &record.metrics),
            ("client", &record.client_metrics),
        ] {
            for (name, value) in metrics {
                let name = format!("{kind}/{name}");
                let series = further
                    .entry(name.clone())
                    .or_insert_with(|| Series::named(&name));
                series.add(round, Some(*value));
            }
        }
    }
    usual.extend(further.into_values());
    usual.retain(|series| !series.points.is_empty());
    usual
}

fn usual_values(record: &RoundRecord) -> [(&'static str, Option<f64>); 9] {
    [
        ("train_loss", record.train_loss),
        ("validation_loss", record.validation_loss),
        ("validation_accuracy", record.validation_accuracy),
        ("test_loss", record.test_loss),
        ("test_accuracy", record.test_accuracy),
        ("lr", record.lr),
        ("seconds", Some(record.seconds)),
        ("bytes", Some(record.bytes as f64)),
        ("energy_joules", record.energy_joules),
    ]
}

impl Series {
    fn named(name: &str) -> Self {
        Self {
            name: name.to_string(),
            points: Vec::new(),
        }
    }

    fn add(&mut self, round: u64, value: Option<f64>) {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            self.points.push(Point { round, value });
        }
    }
}
