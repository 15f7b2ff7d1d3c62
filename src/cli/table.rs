//! Tables for people.

use std::fmt;

use super::values::{human_bytes, human_joules, percent};
use crate::telemetry::RoundRecord;

/// On which side of a column its cells stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows under a heading, in columns as wide as their widest cell.
#[derive(Debug, Clone)]
pub struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table of these columns.
    pub fn new(columns: &[(&str, Align)]) -> Self {
        Self {
            columns: columns
                .iter()
                .map(|(title, align)| (title.to_string(), *align))
                .collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; cells that are missing are empty.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cell = |row: &[String], index: usize| row.get(index).cloned().unwrap_or_default();
        let width = |index: usize| {
            let cells = self.rows.iter().map(|row| cell(row, index).chars().count());
            cells
                .chain([self.columns[index].0.chars().count()])
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<_> = (0..self.columns.len()).map(width).collect();
        let heading: Vec<_> = self
            .columns
            .iter()
            .map(|(title, _)| title.clone())
            .collect();
        for row in [&heading].into_iter().chain(&self.rows) {
            let mut line = String::new();
            for (index, (_, align)) in self.columns.iter().enumerate() {
                let (text, width) = (cell(row, index), widths[index]);
                let gap = if index == 0 { "" } else { "  " };
                match align {
                    Align::Left => line.push_str(&format!("{gap}{text:<width$}")),
                    Align::Right => line.push_str(&format!("{gap}{text:>width$}")),
                }
            }
            writeln!(formatter, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// The table of a job's rounds. Energy has a column where some was measured.
pub fn rounds_table(rounds: &[RoundRecord]) -> Table {
    use Align::{Left, Right};
    let has_energy = rounds.iter().any(|record| record.energy_joules.is_some());
    let mut columns = vec![
        ("round", Right),
        ("clients", Right),
        ("train loss", Right),
        ("test loss", Right),
        ("test accuracy", Right),
        ("seconds", Right),
        ("bytes", Right),
    ];
    columns.extend(has_energy.then_some(("energy", Right)));
    columns.push(("", Left));
    let mut table = Table::new(&columns);
    let number = |value: Option<f64>| value.map_or("-".to_string(), |value| format!("{value:.4}"));
    for record in rounds {
        let note = record.abandoned.as_ref();
        let mut cells = vec![
            record.round.to_string(),
            record.clients.len().to_string(),
            number(record.train_loss),
            number(record.test_loss),
            record.test_accuracy.map_or("-".to_string(), percent),
            format!("{:.2}", record.seconds),
            human_bytes(record.bytes),
        ];
        if has_energy {
            cells.push(record.energy_joules.map_or("-".to_string(), human_joules));
        }
        cells.push(note.map_or(String::new(), |reason| format!("abandoned: {reason}")));
        table.row(cells);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ClientId, ModelVersion, RoundId};

    fn rounds() -> [RoundRecord; 2] {
        [
            RoundRecord {
                round: RoundId(9),
                version: Some(ModelVersion(9)),
                abandoned: None,
                test_loss: Some(0.25),
                test_accuracy: Some(0.9528),
                train_loss: Some(0.5),
                seconds: 0.127,
                bytes: 615_040,
                clients: vec![ClientId(0), ClientId(1)],
                contributions: vec![],
                energy_joules: None,
            },
            RoundRecord {
                round: RoundId(10),
                version: None,
                abandoned: Some("no report".to_string()),
                test_loss: None,
                test_accuracy: None,
                train_loss: None,
                seconds: 900.0,
                bytes: 0,
                clients: vec![],
                contributions: vec![],
                energy_joules: None,
            },
        ]
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let text = rounds_table(&rounds()).to_string();
        let expected = [
            "round  clients  train loss  test loss  test accuracy  seconds     bytes",
            "    9        2      0.5000     0.2500        95.28 %     0.13  615.0 kB",
            "   10        0           -          -              -   900.00       0 B  abandoned: no report",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn energy_has_a_column_where_some_was_measured() {
        let mut rounds = rounds();
        rounds[0].energy_joules = Some(39_440.0);
        let text = rounds_table(&rounds).to_string();
        let expected = [
            "round  clients  train loss  test loss  test accuracy  seconds     bytes   energy",
            "    9        2      0.5000     0.2500        95.28 %     0.13  615.0 kB  39.4 kJ",
            "   10        0           -          -              -   900.00       0 B        -  abandoned: no report",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }
}
