//! `fedavg wait`, `logs` and `clone`.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use futures_util::StreamExt;
use tokio::time::timeout;

use super::{
    ConnectArgs,
    submit::{FollowToEnd, submit_and_tell},
};
use crate::{
    cli::{
        Failure, Interrupt, JobArgs, JobProgress, Screen,
        advice::warnings,
        block_on, job,
        values::{seconds, time},
    },
    ids::JobId,
    protocol::LoggedEvent,
    transport::{Operator, Submission},
};

/// How long a clone that is watched is followed while the coordinator can't be reached.
const PATIENCE: Duration = Duration::from_secs(60);

/// Wait for a job's end without a word; the exit code says how it ended.
#[derive(Debug, Clone, Args)]
pub struct WaitArgs {
    /// The job's number
    #[arg(value_name = "JOB")]
    pub job: JobId,
    /// Wait no longer than this many seconds; the exit code is then 1, and the job goes on
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<Duration>,
    /// The coordinator.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

impl WaitArgs {
    /// Waits.
    ///
    /// # Errors
    ///
    /// No such job, no coordinator, a job that did not complete, or not in time.
    pub fn run(&self) -> Result<(), Failure> {
        let client = self.connect.client()?;
        block_on(async {
            let interrupt = Interrupt::listen()?;
            let ended = async {
                let ended = client.operator.wait(&client.caller, self.job).await;
                ended.map_err(|error| client.failure(error))
            };
            let longest = self.timeout.unwrap_or(Duration::MAX);
            let summary = tokio::select! {
                ended = timeout(longest, ended) => match ended {
                    Ok(ended) => ended?,
                    Err(_) => return Err(Failure::because(
                        format!("job {} goes on", self.job),
                        format!("it did not end in {} s", longest.as_secs_f64()),
                    )),
                },
                () = interrupt.wait() => return Err(Failure::Interrupted),
            };
            // It has one once it has ended.
            summary.outcome.as_ref().map_or(Ok(()), Failure::of_outcome)
        })
    }
}

/// Print what has happened in a job so far.
#[derive(Debug, Clone, Args)]
pub struct LogsArgs {
    /// The job's number
    #[arg(value_name = "JOB")]
    pub job: JobId,
    /// Only what came after the entry with this number
    #[arg(long, value_name = "N", default_value = "0")]
    pub after: u64,
    /// Print each entry as JSON, one a line
    #[arg(long)]
    pub json: bool,
    /// The coordinator.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

impl LogsArgs {
    /// Prints the log, a line for each entry that says something to a person, with its time.
    ///
    /// # Errors
    ///
    /// No such job, no coordinator.
    pub fn run(&self, screen: &Screen) -> Result<(), Failure> {
        let client = self.connect.client()?;
        block_on(async {
            let summary = client.job(self.job).await?;
            if summary.last_event <= self.after {
                return Ok(());
            }
            let events = client
                .operator
                .events(&client.caller, self.job, self.after)
                .await;
            let mut events = events.map_err(|error| client.failure(error))?;
            let mut progress = JobProgress::lines(screen, summary.spec.rounds);
            while let Some(entry) = events.next().await {
                let entry = entry.map_err(|error| client.failure(error))?;
                self.print(screen, &mut progress, &entry)?;
                // The stream goes on with what comes, as "fedavg watch" shows it.
                if entry.sequence >= summary.last_event {
                    break;
                }
            }
            Ok(())
        })
    }

    fn print(
        &self,
        screen: &Screen,
        progress: &mut JobProgress,
        entry: &LoggedEvent,
    ) -> Result<(), Failure> {
        if self.json {
            return screen.print_json(entry);
        }
        match progress.line(&entry.event) {
            Some(line) => screen.print(&format!("{} {line}", time(entry.time))),
            None => Ok(()),
        }
    }
}

/// Submit a job like another one, with what the flags change.
#[derive(Debug, Clone, Args)]
pub struct CloneArgs {
    /// The other job's number
    #[arg(value_name = "JOB")]
    pub other: JobId,
    /// Write the job into this file, as "fedavg submit" reads it, instead of submitting it
    #[arg(long, value_name = "JOB.toml", conflicts_with = "watch")]
    pub to: Option<PathBuf>,
    /// What is to be otherwise.
    #[command(flatten)]
    pub change: JobArgs,
    /// Follow the new job until it ends
    #[arg(long, help_heading = "Submission")]
    pub watch: bool,
    /// Print JSON
    #[arg(long, help_heading = "Submission")]
    pub json: bool,
    /// The coordinator.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

impl CloneArgs {
    /// Submits the job, or writes it down.
    ///
    /// # Errors
    ///
    /// No such job, no coordinator, a file that can't be written, a job that is refused.
    pub fn run(&self, screen: &Screen) -> Result<(), Failure> {
        if self.change.file.is_some() {
            let problem = "a clone has the settings of the other job: change them by flags";
            return Err(Failure::Usage(problem.to_string()));
        }
        let client = self.connect.client()?;
        let other = block_on(client.job(self.other))?;
        let asked = self.change.over(other.spec.clone())?;
        if let Some(file) = &self.to {
            return job::write_job(file, &asked.spec);
        }
        let warnings = warnings(&asked, &self.change);
        block_on(async {
            let submission = Submission::new(asked.spec.clone());
            let coordinator = client.coordinator().await?;
            let summary =
                submit_and_tell(screen, &client, submission, self.json, &warnings).await?;
            if summary.initial_digest != other.initial_digest && asked.spec.seed == other.spec.seed
            {
                screen.warn(&[format!(
                    "job {} began with a model that it was given: this one begins with one that is drawn",
                    self.other
                )]);
            }
            if !self.watch {
                return Ok(());
            }
            let follow = FollowToEnd {
                coordinator,
                job: summary.job,
                rounds: asked.spec.rounds,
                patience: PATIENCE,
                as_json: self.json,
            };
            follow.run(screen, &client).await
        })
    }
}
