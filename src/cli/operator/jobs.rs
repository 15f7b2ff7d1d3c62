//! `fedavg status`, `watch`, `results`, `cancel`, `pause`, `resume` and `delete`.

use std::time::Duration;

use clap::Args;
use futures_util::TryStreamExt;

use super::{Client, ConnectArgs, follow::Follower};
use crate::{
    cli::{
        Align, Failure, Interrupt, Results, RunSummary, Screen, Table, block_on,
        output::{OutputArgs, last_line, of_metric},
        rounds_table,
        values::seconds,
    },
    ids::{JobId, ModelVersion, RoundId},
    protocol::JobSummary,
    text::printable,
    transport::Operator,
    words::plural,
};

/// List all jobs, or show one job in detail.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// The job's number [default: all jobs]
    #[arg(value_name = "JOB")]
    pub job: Option<JobId>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The coordinator.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

impl StatusArgs {
    /// Prints a line per job, or all about one.
    ///
    /// # Errors
    ///
    /// No such job, no coordinator.
    pub fn run(&self, screen: &Screen) -> Result<(), Failure> {
        let client = self.connect.client()?;
        let Some(job) = self.job else {
            let jobs = block_on(async {
                let jobs = client.operator.jobs(&client.caller).await;
                jobs.map_err(|error| client.failure(error))
            })?;
            return if self.json {
                screen.print_json(&jobs)
            } else {
                screen.print(&jobs_table(&jobs).to_string())
            };
        };
        let summary = block_on(client.job(job))?;
        if self.json {
            screen.print_json(&summary)
        } else {
            screen.print(&details(&summary))
        }
    }
}

/// Follow a job until it ends; the exit code says how it ended.
#[derive(Debug, Clone, Args)]
pub struct WatchArgs {
    /// The job's number
    #[arg(value_name = "JOB")]
    pub job: JobId,
    /// End if the coordinator can't be reached for this long, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub patience: Duration,
    /// Print each event as JSON, one a line
    #[arg(long)]
    pub json: bool,
    /// The coordinator.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

impl WatchArgs {
    /// Watches to the job's end. Ctrl-C ends the watching, not the job.
    ///
    /// # Errors
    ///
    /// No such job, no coordinator, or the job did not complete.
    pub fn run(&self, screen: &Screen) -> Result<(), Failure> {
        let client = self.connect.client()?;
        block_on(async {
            let interrupt = Interrupt::listen()?;
            // Before the job: what is watched is this coordinator's.
            let coordinator = client.coordinator().await?;
            let summary = client.job(self.job).await?;
            let rounds = summary.spec.rounds;
            // A job that waits its turn has no events: without this line, nothing would be seen.
            if summary.phase == "queued" && !self.json {
                screen.note(&format!("job {}: {}", self.job, summary.detail));
            }
            let follower = Follower {
                client: &client,
                job: self.job,
                coordinator,
                patience: self.patience,
            };
            let outcome = follower.until(interrupt, screen, rounds, self.json).await?;
            Failure::of_outcome(&outcome)
        })
    }
}

/// Show a job's rounds, and write its results into a folder.
#[derive(Debug, Clone, Args)]
pub struct ResultsArgs {
    /// The job's number
    #[arg(value_name = "JOB")]
    pub job: JobId,
    /// The files; the job must have ended.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Print the summary as JSON instead of a table
    #[arg(long)]
    pub json: bool,
    /// The coordinator.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

impl ResultsArgs {
    /// Prints and writes what there is.
    ///
    /// # Errors
    ///
    /// No such job, no coordinator, files that can't be written, or a job that goes on.
    pub fn run(&self, screen: &Screen) -> Result<(), Failure> {
        let client = self.connect.client()?;
        // Before the results are fetched: a model of gigabytes must not end at a folder that can't be written.
        let output = self.output.prepare()?;
        block_on(async {
            if let Some(folder) = &output {
                let results = client.results(self.job).await?;
                tokio::task::block_in_place(|| results.write(folder))?;
                screen.note(&format!("written to {}", folder.path().display()));
            }
            print_results(screen, &client, self.job, self.json).await
        })
    }
}

/// Cancel a job that waits or runs.
#[derive(Debug, Clone, Args)]
pub struct CancelArgs {
    /// The job's number
    #[arg(value_name = "JOB")]
    pub job: JobId,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The coordinator.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

impl CancelArgs {
    /// Cancels the job.
    ///
    /// # Errors
    ///
    /// No such job, one that has ended already, no coordinator.
    pub fn run(&self, screen: &Screen) -> Result<(), Failure> {
        let client = self.connect.client()?;
        let summary = block_on(async {
            let cancelled = client.operator.cancel(&client.caller, self.job).await;
            cancelled.map_err(|error| client.failure(error))
        })?;
        if self.json {
            screen.print_json(&summary)
        } else {
            screen.print(&format!("job {} is {}", self.job, summary.phase))
        }
    }
}

/// Let no further round of a job begin; the open one goes on.
#[derive(Debug, Clone, Args)]
pub struct PauseArgs {
    /// The job's number
    #[arg(value_name = "JOB")]
    pub job: JobId,
    /// The coordinator.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

impl PauseArgs {
    /// Pauses the job, or lets its rounds begin again.
    ///
    /// # Errors
    ///
    /// No such job, one that has ended or not started, no coordinator.
    pub fn run(&self, screen: &Screen, paused: bool) -> Result<(), Failure> {
        let client = self.connect.client()?;
        let summary = block_on(async {
            let asked = client.operator.pause(&client.caller, self.job, paused);
            asked.await.map_err(|error| client.failure(error))
        })?;
        screen.print(&format!("job {}: {}", self.job, summary.detail))
    }
}

/// Forget a job that has ended, with its log, its records and its model.
#[derive(Debug, Clone, Args)]
pub struct DeleteArgs {
    /// The job's number
    #[arg(value_name = "JOB")]
    pub job: JobId,
    /// The coordinator.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

impl DeleteArgs {
    /// Deletes the job.
    ///
    /// # Errors
    ///
    /// No such job, one that has not ended, no coordinator.
    pub fn run(&self, screen: &Screen) -> Result<(), Failure> {
        let client = self.connect.client()?;
        block_on(async {
            let asked = client.operator.delete(&client.caller, self.job);
            asked.await.map_err(|error| client.failure(error))
        })?;
        screen.print(&format!("job {} is deleted", self.job))
    }
}

impl Client {
    pub(super) async fn job(&self, job: JobId) -> Result<JobSummary, Failure> {
        let summary = self.operator.job(&self.caller, job).await;
        summary.map_err(|error| self.failure(error))
    }

    /// The number of a job's best version.
    pub(in crate::cli) async fn best_version(&self, job: JobId) -> Result<ModelVersion, Failure> {
        let summary = self.job(job).await?;
        let Some(best) = &summary.best else {
            let problem = format!("job {job} has no best version: nothing was measured yet");
            return Err(Failure::Usage(problem));
        };
        Ok(best.measured.version)
    }

    /// All that a job that has ended left behind.
    async fn results(&self, job: JobId) -> Result<Results, Failure> {
        let summary = self.job(job).await?;
        if summary.outcome.is_none() {
            return Err(Failure::because(
                format!("job {job} has not ended; \"fedavg watch {job}\" waits for its end"),
                format!("{}: {}", summary.phase, summary.detail),
            ));
        }
        let (operator, caller) = (&self.operator, &self.caller);
        let rounds = operator.rounds(caller, job, RoundId(0)).await;
        let rounds = rounds.map_err(|error| self.failure(error))?;
        let events = operator.events(caller, job, 0).await;
        let events = events.map_err(|error| self.failure(error))?;
        let events = events.try_collect().await;
        let events = events.map_err(|error| self.failure(error))?;
        let model = operator.model(caller, job, None).await;
        let model = model.map_err(|error| self.failure(error))?;
        let mut best_model = None;
        if let Some(best) = &summary.best
            && best.measured.version != summary.version
        {
            let version = Some(best.measured.version);
            let best = operator.model(caller, job, version).await;
            best_model = Some(best.map_err(|error| self.failure(error))?);
        }
        Ok(Results {
            summary: RunSummary::new(&summary, &rounds),
            rounds,
            events,
            model,
            best_model,
        })
    }
}

/// A job's table of rounds with a last line, or its run's summary as JSON.
pub(super) async fn print_results(
    screen: &Screen,
    client: &Client,
    job: JobId,
    as_json: bool,
) -> Result<(), Failure> {
    let summary = client.job(job).await?;
    let rounds = client
        .operator
        .rounds(&client.caller, job, RoundId(0))
        .await;
    let rounds = rounds.map_err(|error| client.failure(error))?;
    let run = RunSummary::new(&summary, &rounds);
    if as_json {
        return screen.print_json(&run);
    }
    screen.print(&rounds_table(&rounds).to_string())?;
    screen.print(&last_line(&run, None))
}

fn jobs_table(jobs: &[JobSummary]) -> Table {
    let mut table = Table::new(&[
        ("job", Align::Right),
        ("phase", Align::Left),
        ("model", Align::Left),
        ("dataset", Align::Left),
        ("version", Align::Left),
        ("", Align::Left),
    ]);
    for job in jobs {
        table.row([
            job.job.to_string(),
            job.phase.clone(),
            job.spec.model.clone(),
            job.spec.dataset.clone(),
            format!("{} of {}", job.version, job.spec.rounds),
            job.detail.clone(),
        ]);
    }
    table
}

fn details(job: &JobSummary) -> String {
    let clients = job.clients.or(job.spec.clients);
    let clients = clients.map_or("as many clients as workers".to_string(), |clients| {
        plural(clients, "client")
    });
    let mut lines = vec![
        format!("job {}: {}", job.job, job.phase),
        format!("  {}", job.detail),
        format!(
            "  {} on {}, {clients} ({}), {}",
            job.spec.model,
            job.spec.dataset,
            job.spec.partition,
            plural(job.parameters, "parameter")
        ),
        format!(
            "  strategy {}",
            printable(&job.spec.strategy.to_string(), 1000)
        ),
        format!(
            "  version {} of {}, round {}",
            job.version, job.spec.rounds, job.round
        ),
    ];
    if let Some(best) = &job.best {
        let (metric, version) = (&best.metric, best.measured.version);
        let value = of_metric(metric, best.value);
        lines.push(format!("  best: version {version}, {metric} {value}"));
    }
    if job.spec.priority > 1 {
        lines.push(format!("  priority {}", job.spec.priority));
    }
    if job.goal > 0 {
        lines.push(format!(
            "  {} of {}",
            job.accepted,
            plural(job.goal, "report")
        ));
    }
    lines.join("\n")
}
