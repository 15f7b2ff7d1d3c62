//! `fedavg export`: a run's curves for other programs.

mod events;
mod series;

use std::{io::Write, path::PathBuf};

use clap::Args;
use events::EventFile;
pub(super) use series::{Point, Series, series_of};

use super::{
    Failure, Screen, block_on,
    failure::in_full,
    operator::{Client, ConnectArgs},
    text_file::{RECORD, read_text},
    values::now,
    whole_file::WholeFile,
};
use crate::{
    ids::{JobId, RoundId},
    protocol::RoundRecord,
    transport::Operator,
};

/// Write a run's curves for other programs: TensorBoard, or any that reads CSV.
#[derive(Debug, Clone, Args)]
pub struct ExportArgs {
    /// A job's number, or a folder that "fedavg simulate --output" or "fedavg results --output" wrote
    #[arg(value_name = "JOB|FOLDER")]
    pub source: String,
    /// Write a table: a line a round, a column a metric
    #[arg(long, value_name = "FILE.csv", required_unless_present = "tensorboard")]
    pub csv: Option<PathBuf>,
    /// Write an event file into this folder; then: tensorboard --logdir FOLDER
    #[arg(long, value_name = "FOLDER")]
    pub tensorboard: Option<PathBuf>,
    /// The coordinator.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

impl ExportArgs {
    /// Writes the files.
    ///
    /// # Errors
    ///
    /// No such job or folder, a file that can't be written.
    pub fn run(&self, screen: &Screen) -> Result<(), Failure> {
        let rounds = rounds_of(&self.source, &self.connect)?;
        let series = series_of(&rounds);
        if let Some(file) = &self.csv {
            let text = csv(&series);
            let mut whole = WholeFile::create(file)?;
            whole
                .write_all(text.as_bytes())
                .map_err(|error| Failure::of_file(file, error))?;
            whole.put_in_place()?;
            screen.note(&format!("written to {}", file.display()));
        }
        if let Some(folder) = &self.tensorboard {
            let written = EventFile::write(folder, now(), &series);
            let file = written.map_err(|error| Failure::of_file(folder, error))?;
            screen.note(&format!("written to {}", file.display()));
        }
        Ok(())
    }
}

/// The records of a run: of a job's number or of a folder's name.
pub(super) fn rounds_of(source: &str, connect: &ConnectArgs) -> Result<Vec<RoundRecord>, Failure> {
    let Ok(job) = source.parse::<JobId>() else {
        return rounds_in(&PathBuf::from(source));
    };
    let client = connect.client()?;
    block_on(rounds_of_job(&client, job))
}

async fn rounds_of_job(client: &Client, job: JobId) -> Result<Vec<RoundRecord>, Failure> {
    let rounds = client.operator.rounds(&client.caller, job, RoundId(0));
    rounds.await.map_err(|error| client.failure(error))
}

/// The records in a run's folder.
fn rounds_in(folder: &std::path::Path) -> Result<Vec<RoundRecord>, Failure> {
    let file = folder.join("rounds.jsonl");
    let text = read_text(&file, RECORD)?;
    let mut rounds = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let record = serde_json::from_str(line).map_err(|error| {
            Failure::of_file(&file, format!("line {number}: {}", in_full(&error)))
        })?;
        rounds.push(record);
    }
    Ok(rounds)
}

/// A table of all series: a line for each round that any of them has.
fn csv(series: &[Series]) -> String {
    let mut rounds = Vec::new();
    for one in series {
        rounds.extend(one.points.iter().map(|point| point.round));
    }
    rounds.sort_unstable();
    rounds.dedup();
    let mut text = "round".to_string();
    for one in series {
        text.push(',');
        text.push_str(&quoted(&one.name));
    }
    text.push('\n');
    for round in rounds {
        text.push_str(&round.to_string());
        for one in series {
            text.push(',');
            let found = one.points.iter().find(|point| point.round == round);
            if let Some(point) = found {
                text.push_str(&point.value.to_string());
            }
        }
        text.push('\n');
    }
    text
}

/// A cell of a CSV file (RFC 4180).
fn quoted(text: &str) -> String {
    // A spreadsheet takes a cell that begins so for a formula, and a metric's name is a worker's.
    let begins_a_formula = text.starts_with(['=', '+', '-', '@']);
    if !begins_a_formula && !text.contains([',', '"', '\n', '\r']) {
        return text.to_string();
    }
    let guard = if begins_a_formula { "'" } else { "" };
    format!("\"{guard}{}\"", text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ModelVersion;

    #[test]
    fn a_table_has_a_line_a_round_and_a_column_a_metric() {
        let mut first = RoundRecord::committed(RoundId(1), ModelVersion(1));
        first.train_loss = Some(0.5);
        first.client_metrics.insert("f1,\"x\"".to_string(), 0.25);
        let mut second = RoundRecord::committed(RoundId(3), ModelVersion(2));
        second.test_accuracy = Some(0.75);
        second.test_loss = Some(1.0);
        let text = csv(&series_of(&[first, second]));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[0],
            "round,train_loss,test_loss,test_accuracy,seconds,bytes,\"client/f1,\"\"x\"\"\""
        );
        assert_eq!(lines[1], "1,0.5,,,0,0,0.25");
        assert_eq!(lines[2], "3,,1,0.75,0,0,");
        assert_eq!(quoted("=cmd()"), "\"'=cmd()\"");
    }
}
