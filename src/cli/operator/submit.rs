//! `fedavg submit`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::Args;

use super::{ConnectArgs, follow::Follower, jobs::print_results};
use crate::{
    cli::{
        Failure, Interrupt, JobArgs, Screen, advice::warnings, block_on, job::read_model,
        values::seconds,
    },
    protocol::JobSummary,
    transport::Operator,
    words::plural,
};

/// Give the coordinator a job to train.
#[derive(Debug, Clone, Args)]
pub struct SubmitArgs {
    /// The job.
    #[command(flatten)]
    pub job: JobArgs,
    /// Start from this model instead of a random one
    #[arg(long, value_name = "FILE.safetensors", help_heading = "Submission")]
    pub initial: Option<PathBuf>,
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
        let asked = self.job.job()?;
        let warnings = warnings(&asked, &self.job);
        let spec = asked.spec;
        let initial = match &self.initial {
            Some(file) => Some(Arc::new(read_model(screen, file)?)),
            None => None,
        };
        let client = self.connect.client()?;
        block_on(async {
            let coordinator = client.coordinator().await?;
            let submitted = client
                .operator
                .submit(&client.caller, spec.clone(), initial)
                .await;
            let summary = submitted.map_err(|error| client.failure(error))?;
            // Not of a job that is refused: the refusal is enough.
            screen.warn(&warnings);
            if self.json {
                screen.print_json(&summary)?;
            } else {
                screen.print(&submitted_line(&summary))?;
            }
            if !self.watch {
                return Ok(());
            }
            let job = summary.job;
            let follower = Follower {
                client: &client,
                job,
                coordinator,
                patience: self.patience,
            };
            // Not before: until the job is submitted there is nothing to tell, and Ctrl-C ends the command by itself.
            let interrupt = Interrupt::listen()?;
            let outcome = follower
                .until(interrupt, screen, spec.rounds, self.json)
                .await?;
            // Also of a job that failed: its rounds say how far it came.
            print_results(screen, &client, job, self.json).await?;
            Failure::of_outcome(&outcome)
        })
    }
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
