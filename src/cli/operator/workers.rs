//! `fedavg workers` and `fedavg health`.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;

use super::ConnectArgs;
use crate::{
    cli::{Align, Failure, Screen, Table, block_on},
    ids::Timestamp,
    round::WorkerState,
    telemetry::WorkerSummary,
};

/// Show the workers, live and gone.
#[derive(Debug, Clone, Args)]
pub struct WorkersArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Where the coordinator is.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

impl WorkersArgs {
    /// Prints a line per worker.
    ///
    /// # Errors
    ///
    /// No coordinator.
    pub fn run(&self, screen: &Screen) -> Result<(), Failure> {
        let client = self.connect.client()?;
        let workers = block_on(async {
            let workers = client.operator.workers().await;
            workers.map_err(|error| client.failure(error))
        })?;
        match self.json {
            true => screen.print_json(&workers),
            false => screen.print(&table(&workers, now()).to_string()),
        }
    }
}

/// Ask whether the coordinator is well; needs no token.
#[derive(Debug, Clone, Args)]
pub struct HealthArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Where the coordinator is.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

impl HealthArgs {
    /// Prints it.
    ///
    /// # Errors
    ///
    /// No coordinator.
    pub fn run(&self, screen: &Screen) -> Result<(), Failure> {
        let client = self.connect.client()?;
        let health = block_on(async {
            let health = client.operator.health().await;
            health.map_err(|error| client.failure(error))
        })?;
        if self.json {
            return screen.print_json(&health);
        }
        let running = health
            .running
            .map_or("no job runs".to_string(), |job| format!("job {job} runs"));
        screen.print(&format!(
            "well: version {}, protocol {}, {} workers, {running}, {} jobs wait",
            health.version, health.protocol, health.workers, health.queued
        ))
    }
}

fn table(workers: &[WorkerSummary], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        ("worker", Align::Right),
        ("name", Align::Left),
        ("state", Align::Left),
        ("seen", Align::Right),
        ("clients", Align::Right),
        ("slots", Align::Right),
        ("device", Align::Left),
        ("datasets", Align::Left),
    ]);
    for worker in workers {
        let registration = &worker.registration;
        let datasets: Vec<_> = registration
            .datasets
            .iter()
            .map(|dataset| dataset.name.as_str())
            .collect();
        let own = if registration.local { " (its own)" } else { "" };
        table.row([
            worker.worker.to_string(),
            registration.name.clone(),
            state(worker.state).to_string(),
            format!("{} s ago", now.since(worker.last_seen).as_secs()),
            worker.clients.to_string(),
            registration.slots.to_string(),
            registration.device.clone(),
            format!("{}{own}", datasets.join(", ")),
        ]);
    }
    table
}

fn state(state: WorkerState) -> &'static str {
    match state {
        WorkerState::Live => "live",
        WorkerState::Lost => "lost",
        WorkerState::Left => "left",
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(since.as_millis() as u64)
}
