//! Tables for people.

use std::fmt;

use comfy_table::{CellAlignment, presets::NOTHING};

use super::values::{human_bytes, human_joules, number, percent};
use crate::{protocol::RoundRecord, text::printable};

/// The most characters of a cell.
const WIDEST: usize = 300;

/// The side of a column that its cells are aligned to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows under a heading, in columns as wide as their widest cell. What others sent is escaped and cut.
#[derive(Debug, Clone)]
pub struct Table(comfy_table::Table);

impl Table {
    /// A table of these columns.
    pub fn new(columns: &[(&str, Align)]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_preset(NOTHING);
        table.set_header(columns.iter().map(|(title, _)| *title));
        for (column, (_, align)) in table.column_iter_mut().zip(columns) {
            column.set_padding((0, 2));
            column.set_cell_alignment(match align {
                Align::Left => CellAlignment::Left,
                Align::Right => CellAlignment::Right,
            });
        }
        Self(table)
    }

    /// Adds a row; cells that are missing are empty.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut row = Vec::new();
        for cell in cells {
            row.push(printable(&cell, WIDEST).into_owned());
        }
        self.0.add_row(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The padding of the last column would be trailing spaces.
        writeln!(formatter, "{}", self.0.trim_fmt())
    }
}

/// The table of a job's rounds. Energy and the validation split have columns if they were measured.
pub fn rounds_table(rounds: &[RoundRecord]) -> Table {
    use Align::{Left, Right};
    let has_energy = rounds.iter().any(|record| record.energy_joules.is_some());
    let has_validation = rounds.iter().any(|record| record.validation_loss.is_some());
    let mut columns = vec![("round", Right), ("clients", Right), ("train loss", Right)];
    if has_validation {
        columns.extend([("validation loss", Right), ("validation accuracy", Right)]);
    }
    columns.extend([
        ("test loss", Right),
        ("test accuracy", Right),
        ("seconds", Right),
        ("bytes", Right),
    ]);
    columns.extend(has_energy.then_some(("energy", Right)));
    columns.push(("", Left));
    let mut table = Table::new(&columns);
    for record in rounds {
        let mut cells = vec![
            record.round.to_string(),
            record.folded.len().to_string(),
            record.train_loss.map_or("-".to_string(), number),
        ];
        if has_validation {
            cells.push(record.validation_loss.map_or("-".to_string(), number));
            cells.push(record.validation_accuracy.map_or("-".to_string(), percent));
        }
        cells.extend([
            record.test_loss.map_or("-".to_string(), number),
            record.test_accuracy.map_or("-".to_string(), percent),
            format!("{:.2}", record.seconds),
            human_bytes(record.bytes),
        ]);
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
    fn a_cell_of_any_length_and_with_any_character_is_a_part_of_its_row() {
        let mut table = Table::new(&[("device", Align::Left), ("reason", Align::Left)]);
        table.row(["x".repeat(70_000), "a\nb\x1b[31m\u{202e}".to_string()]);
        let text = table.to_string();
        assert_eq!(text.lines().count(), 2);
        assert!(text.ends_with("x…  a\\nb\\u{1b}[31m\\u{202e}\n"), "{text}");
        assert!(text.chars().count() < 1000);
    }

    #[test]
    fn energy_has_a_column_if_some_was_measured() {
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
