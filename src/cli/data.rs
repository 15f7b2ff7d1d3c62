//! `fedavg data`: the datasets of this machine.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use indicatif::ProgressStyle;
use serde::Serialize;

use super::{Align, Failure, Screen, Table, failure::in_full, trainers::folder};
use crate::data::{
    Dataset, KNOWN,
    download::{self, Checksum, Download, DownloadError, Origin},
    open,
};

/// List, check and download the datasets of this machine.
#[derive(Debug, Clone, Args)]
pub struct DataArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: DataCommand,
    /// The folder that holds the datasets [default: $FEDAVG_DATA, else `fedavg` in your cache folder]
    #[arg(long, global = true, value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to do with datasets.
#[derive(Debug, Clone, Subcommand)]
pub enum DataCommand {
    /// List the known datasets, and whether they are on this machine
    List,
    /// Download a dataset and check it
    Download(DownloadArgs),
    /// Print the fingerprint of a dataset: two machines with the same fingerprint hold the same data
    Fingerprint {
        /// The dataset: digits, cifar10 or folder:PATH
        #[arg(value_name = "NAME")]
        name: String,
    },
}

/// What to download.
#[derive(Debug, Clone, Args)]
pub struct DownloadArgs {
    /// The dataset
    #[arg(value_parser = ["cifar10"], value_name = "NAME")]
    pub name: String,
    /// A copy of the archive: a file on this machine or a URL [default: the author's site]
    #[arg(long, value_name = "FILE|URL")]
    pub from: Option<Origin>,
    /// The SHA-256 that the archive must have [default: that of the published archive]
    #[arg(long, value_name = "HEX")]
    pub sha256: Option<Checksum>,
}

#[derive(Serialize)]
struct Line {
    name: String,
    here: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    train_examples: Option<usize>,
    test_examples: Option<usize>,
    fingerprint: Option<String>,
}

impl DataArgs {
    /// Carries the command out.
    ///
    /// # Errors
    ///
    /// A dataset that is not here or is damaged, a download that failed.
    pub fn run(&self, screen: &Screen) -> Result<(), Failure> {
        match &self.command {
            DataCommand::List => self.list(screen),
            DataCommand::Download(arguments) => self.download(screen, arguments),
            DataCommand::Fingerprint { name } => {
                let fingerprint = self.open(name)?.fingerprint();
                if self.json {
                    screen.print_json(&serde_json::json!({
                        "name": name, "fingerprint": fingerprint
                    }))
                } else {
                    screen.print(&fingerprint)
                }
            }
        }
    }

    fn folder(&self) -> Result<PathBuf, Failure> {
        folder(self.data_dir.clone()).map_err(|error| Failure::Usage(error.to_string()))
    }

    fn open(&self, name: &str) -> Result<Dataset, Failure> {
        open(name, &self.folder()?)
            .map_err(|error| Failure::unusable(format!("dataset {name}"), &error))
    }

    fn list(&self, screen: &Screen) -> Result<(), Failure> {
        let folder = self.folder()?;
        // A dataset that is not here is a line of the answer, not a failure.
        let lines: Vec<_> = KNOWN
            .map(|name| line(name, open(name, &folder).map_err(|error| in_full(&error))))
            .into();
        if self.json {
            return screen.print_json(&lines);
        }
        let mut table = Table::new(&[
            ("dataset", Align::Left),
            ("train", Align::Right),
            ("test", Align::Right),
            ("fingerprint", Align::Left),
        ]);
        for line in lines {
            table.row([
                line.name,
                or_dash(line.train_examples),
                or_dash(line.test_examples),
                line.fingerprint.or(line.problem).unwrap_or_default(),
            ]);
        }
        screen.print(&table.to_string())
    }

    fn download(&self, screen: &Screen, arguments: &DownloadArgs) -> Result<(), Failure> {
        let usual = Download::default();
        let download = Download {
            origin: arguments.from.clone().unwrap_or(usual.origin),
            checksum: arguments.sha256.clone().unwrap_or(usual.checksum),
        };
        let folder = self.folder()?;
        screen.note(&format!(
            "getting {} from {} into {}",
            arguments.name,
            download.origin,
            folder.display()
        ));
        let bar = screen.bar(0);
        let style = ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes}  {eta}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let place = download::cifar10(&download, &folder, &mut |progress| {
            // A server need not say the length. Then the bar is full, and its figure still grows.
            bar.set_length(progress.total.unwrap_or(progress.received));
            bar.set_position(progress.received);
        });
        // Also after a failure, or the bar would stay on the screen above the error.
        bar.finish_and_clear();
        let place = place.map_err(|error| match error {
            DownloadError::NoChecksum { .. } => Failure::Usage(error.to_string()),
            error => Failure::because(format!("no {}", arguments.name), error),
        })?;
        if self.json {
            screen.print_json(&serde_json::json!({
                "name": arguments.name, "folder": place
            }))
        } else {
            screen.print(&place.display().to_string())
        }
    }
}

fn or_dash(count: Option<usize>) -> String {
    count.map_or("-".to_string(), |count| count.to_string())
}

fn line(name: &str, opened: Result<Dataset, String>) -> Line {
    let here = opened.as_ref().ok();
    Line {
        name: name.to_string(),
        here: here.is_some(),
        train_examples: here.map(|dataset| dataset.train.len()),
        test_examples: here.map(|dataset| dataset.test.len()),
        fingerprint: here.map(Dataset::fingerprint),
        problem: opened.err(),
    }
}
