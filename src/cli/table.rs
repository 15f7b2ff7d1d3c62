//! Tables for people.

use std::fmt;

use super::values::{human_bytes, human_joules, percent};
use crate::protocol::RoundRecord;

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
        let mut cells = vec![
            record.round.to_string(),
            record.folded.len().to_string(),
            number(record.train_loss),
            number(record.test_loss),
            record.test_accuracy.map_or("-".to_string(), percent),
            format!("{:.2}", record.seconds),
            human_bytes(record.bytes),
        ];
        if has_energy {
            cells.push(record.energy_joules.map_or("-".to_string(), human_joules));
        }
        cells.push(note(record));
        table.row(cells);
    }
    table
}

/// What is unusual about a round, in words.
fn note(record: &RoundRecord) -> String {
    if let Some(reason) = &record.abandoned {
        return format!("abandoned: {reason}");
    }
    let mut notes = Vec::new();
    if !record.excluded.is_empty() {
        notes.push(format!("{} excluded", record.excluded.len()));
    }
    if !record.state_lost.is_empty() {
        notes.push(format!("{} lost their state", record.state_lost.len()));
    }
    notes.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::{ClientId, ModelVersion, RoundId},
        round::Excluded,
    };

    fn rounds() -> [RoundRecord; 2] {
        let mut committed = RoundRecord::committed(RoundId(9), ModelVersion(9));
        committed.test_loss = Some(0.25);
        committed.test_accuracy = Some(0.9528);
        committed.train_loss = Some(0.5);
        committed.seconds = 0.127;
        committed.bytes = 615_040;
        committed.accepted = vec![ClientId(0), ClientId(1)];
        committed.folded = committed.accepted.clone();
        let mut abandoned = RoundRecord::abandoned(RoundId(10), "no report");
        abandoned.seconds = 900.0;
        [committed, abandoned]
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

    #[test]
    fn who_was_left_out_and_who_lost_its_state_is_noted() {
        let [mut round, _] = rounds();
        round.folded = vec![ClientId(0)];
        round.excluded = vec![Excluded {
            client: ClientId(1),
            reason: "too far".to_string(),
        }];
        round.state_lost = vec![ClientId(0)];
        let text = rounds_table(&[round]).to_string();
        let row = text.lines().nth(1).unwrap();
        assert!(row.starts_with("    9        1"), "{row}");
        assert!(
            row.ends_with("615.0 kB  1 excluded, 1 lost their state"),
            "{row}"
        );
    }
}
