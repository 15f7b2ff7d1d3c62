//! `fedavg submit`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use clap::Args;
use tokio::time::sleep;

use super::{Client, ConnectArgs, follow::Follower, jobs::print_results};
use crate::{
    cli::{
        AskedJob, Failure, Interrupt, JobArgs, Screen, advice::warnings, block_on, job::read_model,
        values::seconds,
    },
    ids::{CoordinatorId, JobId},
    protocol::{ContinuedFrom, JobSummary},
    text::printable,
    transport::{Operator, OperatorError, Submission, SubmissionKey},
    words::plural,
};

/// How often a submission is sent again whose answer was lost.
const TRIES: usize = 4;

/// Give the coordinator a job to train.
#[derive(Debug, Clone, Args)]
pub struct SubmitArgs {
    /// The job.
    #[command(flatten)]
    pub job: JobArgs,
    /// Start from this model instead of a random one
    #[arg(long, value_name = "FILE.safetensors", help_heading = "Submission")]
    pub initial: Option<PathBuf>,
    /// Makes the submission safe to repeat: all submissions with one KEY are the same job [default: a random one]
    #[arg(long, value_name = "KEY", help_heading = "Submission")]
    pub key: Option<SubmissionKey>,
    /// Follow the job until it ends; the exit code says how it ended. Ctrl-C ends this command, and the job goes on
    #[arg(long, help_heading = "Submission")]
    pub watch: bool,
    /// With --watch: end if the coordinator can't be reached for this long, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds, help_heading = "Submission")]
    pub patience: Duration,
    /// Print JSON lines: the job; with --watch also its events, and the summary at the end
    #[arg(long, help_heading = "Submission")]
    pub json: bool,
    /// The coordinator.
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// Refused: attacks are for simulations.
    #[arg(long, hide = true, value_name = "KIND:FRACTION")]
    pub attack: Option<String>,
    /// Refused likewise.
    #[arg(long, hide = true, value_name = "KEY=VALUE")]
    pub attack_set: Vec<String>,
}

impl SubmitArgs {
    /// Submits the job, and follows it if that is asked for.
    ///
    /// # Errors
    ///
    /// The arguments make no job, the coordinator refuses it or can't be reached; with `--watch`, the job did not complete.
    pub fn run(&self, screen: &Screen) -> Result<(), Failure> {
        if self.attack.is_some() || !self.attack_set.is_empty() {
            return Err(Failure::Usage(
                "--attack is for simulations: no coordinator has clients that attack. Use \"fedavg simulate --attack\""
                    .to_string(),
            ));
        }
        let client = self.connect.client()?;
        let asked = self.asked(&client)?;
        let warnings = warnings(&asked, &self.job);
        let spec = asked.spec;
        let mut submission = Submission::new(spec.clone());
        if let Some(file) = &self.initial {
            submission.initial = Some(Arc::new(read_model(screen, file)?));
        }
        submission.key = self.key.clone();
        block_on(async {
            let coordinator = client.coordinator().await?;
            let summary =
                submit_and_tell(screen, &client, submission, self.json, &warnings).await?;
            if !self.watch {
                return Ok(());
            }
            let follow = FollowToEnd {
                coordinator,
                job: summary.job,
                rounds: spec.rounds,
                patience: self.patience,
                as_json: self.json,
            };
            follow.run(screen, &client).await
        })
    }
}

/// A job that was submitted, to be followed.
pub(super) struct FollowToEnd {
    /// As it was before the submission: what is followed is this coordinator's.
    pub coordinator: CoordinatorId,
    pub job: JobId,
    pub rounds: u32,
    pub patience: Duration,
    pub as_json: bool,
}

impl FollowToEnd {
    /// Shows the job to its end, and its results.
    pub async fn run(&self, screen: &Screen, client: &Client) -> Result<(), Failure> {
        let follower = Follower {
            client,
            job: self.job,
            coordinator: self.coordinator.clone(),
            patience: self.patience,
        };
        // Not before: until the job is submitted there is nothing to tell, and Ctrl-C ends the command by itself.
        let interrupt = Interrupt::listen()?;
        let outcome = follower
            .until(interrupt, screen, self.rounds, self.as_json)
            .await?;
        // Also of a job that failed: its rounds say how far it came.
        print_results(screen, client, self.job, self.as_json).await?;
        Failure::of_outcome(&outcome)
    }
}

/// Submits a job, and prints what it is.
pub(super) async fn submit_and_tell(
    screen: &Screen,
    client: &Client,
    submission: Submission,
    as_json: bool,
    warnings: &[String],
) -> Result<JobSummary, Failure> {
    let summary = submitted(client, submission).await?;
    // Not of a job that is refused: the refusal is enough.
    screen.warn(warnings);
    if as_json {
        screen.print_json(&summary)?;
    } else {
        screen.print(&submitted_line(&summary))?;
    }
    if let Some(continued) = &summary.continued {
        screen.note(&continued_line(continued));
    }
    Ok(summary)
}

impl SubmitArgs {
    /// The job that is asked for. One that goes on from another has the other one's settings, unless a file says them.
    fn asked(&self, client: &Client) -> Result<AskedJob, Failure> {
        let Some(continues) = self.job.continues.filter(|_| self.job.file.is_none()) else {
            return self.job.job();
        };
        let mut base = block_on(client.job(continues.job))?.spec;
        (base.first_round, base.continues) = (1, None);
        self.job.over(base)
    }
}

/// Submits a job, once more if the answer was lost: it has a key, and so is the same job.
async fn submitted(client: &Client, mut submission: Submission) -> Result<JobSummary, Failure> {
    if submission.key.is_none() {
        submission.key = Some(random_key()?);
    }
    let mut pauses = ExponentialBuilder::new()
        .with_max_times(TRIES)
        .with_jitter()
        .build();
    loop {
        let submitted = client
            .operator
            .submit_once(&client.caller, submission.clone());
        match (submitted.await, pauses.next()) {
            (Ok(summary), _) => return Ok(summary),
            (Err(OperatorError::Transport(error)), Some(pause)) if error.is_transient() => {
                tracing::warn!(%error, "no answer to the submission: sending it again");
                sleep(pause).await;
            }
            (Err(error), _) => return Err(client.failure(error)),
        }
    }
}

fn random_key() -> Result<SubmissionKey, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::because("no randomness for a key", error.to_string()))?;
    let key = u128::from_le_bytes(bytes);
    format!("{key:032x}").parse().map_err(Failure::Usage)
}

fn continued_line(continued: &ContinuedFrom) -> String {
    let ContinuedFrom { job, version, .. } = continued;
    let mut line = format!("goes on from job {job}, version {version}");
    for note in &continued.notes {
        line.push_str(&format!("; {note}"));
    }
    printable(&line, 1000).into_owned()
}

fn submitted_line(summary: &JobSummary) -> String {
    format!(
        "job {}: {} on {}, {}; {}",
        summary.job,
        summary.spec.model,
        summary.spec.dataset,
        plural(summary.parameters, "parameter"),
        summary.detail
    )
}
