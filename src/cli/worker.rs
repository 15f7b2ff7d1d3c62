//! The worker's process: its arguments, its loop, its end.

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use sysinfo::System;

use super::{
    ClientTlsArgs, DeviceArgs, Failure, Interrupt, JoinTokenArgs, Screen, TaskLimitArgs,
    TrainerArgs, block_on,
    device::list,
    values::{DEFAULT_COORDINATOR, coordinator_url, seconds},
};
use crate::{
    protocol::Hardware,
    transport::http::HttpTransport,
    words::plural,
    worker::{Departure, TrainerFactory, Worker, WorkerConfig, WorkerError},
};

/// How to run a worker.
#[derive(Debug, Clone, Args)]
pub struct WorkerArgs {
    /// The coordinator's address; without a port, 8000
    #[arg(long, value_name = "URL", env = "FEDAVG_COORDINATOR", default_value = DEFAULT_COORDINATOR, value_parser = coordinator_url)]
    pub coordinator: String,
    /// The join token.
    #[command(flatten)]
    pub token: JoinTokenArgs,
    /// TLS, or plain HTTP.
    #[command(flatten)]
    pub tls: ClientTlsArgs,
    /// This worker's name. A worker with --local data, or with personal tensors of clients, that restarts under the same
    /// name gets its clients back. If another worker of this name runs on this machine, this one is NAME-2, NAME-3 and so
    /// on; with --local data it is refused
    /// [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Devices.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// How many clients to train at the same time on each device
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub slots: u32,
    /// Models and data.
    #[command(flatten)]
    pub trainers: TrainerArgs,
    /// A dataset to offer beside digits and cifar10, such as folder:flowers. May be given more than once
    #[arg(long, value_name = "NAME")]
    pub dataset: Vec<String>,
    /// Train on this machine's own data: take part as one client in jobs with --partition local, and in no others
    #[arg(long)]
    pub local: bool,
    /// End if the coordinator can't be reached for this long, in seconds [default: never end]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub patience: Option<Duration>,
    /// Limits.
    #[command(flatten)]
    pub limits: TaskLimitArgs,
    /// Storage.
    #[command(flatten)]
    pub storage: WorkerStorageArgs,
}

/// Where a worker keeps who it is, and what its clients keep between rounds.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Storage")]
pub struct WorkerStorageArgs {
    /// The folder for who this worker is (with its token) and for what its clients keep between rounds (residuals of
    /// top_k, control variates). A worker that was killed, or ended while it had any of that, is the same worker when it is
    /// started again. Below it each coordinator and name has a folder, so workers may share it [default: fedavg/workers in
    /// your data folder]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Keep that in memory instead of files: a worker that is started again is a new one
    #[arg(long, conflicts_with = "state_dir")]
    pub in_memory: bool,
}

impl WorkerStorageArgs {
    /// The folder, if files are wanted.
    fn folder(&self) -> Result<Option<PathBuf>, Failure> {
        if self.in_memory {
            return Ok(None);
        }
        if let Some(folder) = &self.state_dir {
            return Ok(Some(folder.clone()));
        }
        let data = dirs::data_local_dir().ok_or_else(|| {
            let problem = "no folder for data is known here: name one with --state-dir, or keep nothing with --in-memory";
            Failure::Usage(problem.to_string())
        })?;
        Ok(Some(data.join("fedavg/workers")))
    }
}

impl WorkerArgs {
    /// Works until Ctrl-C, then leaves, or ends with the states of clients that it has on its disk.
    ///
    /// # Errors
    ///
    /// The coordinator refuses, or can't be reached for longer than the worker's patience.
    pub fn run(&self, screen: &Screen) -> Result<(), Failure> {
        // What needs no time to be found wrong comes first: opening a GPU and reading datasets take seconds.
        let transport = HttpTransport::new(&self.coordinator, self.tls.config(&self.coordinator)?)
            .map_err(|error| Failure::Usage(error.to_string()))?;
        let join_token = self.token.token()?;
        let state_dir = self.storage.folder()?;
        let devices = self.device.resolve(screen)?;
        let trainers = self.trainers.trainers(&devices)?;
        // In this order: a dataset beside the known ones is offered once it has been read.
        self.read_datasets(&trainers)?;
        self.limits.check_names(&*trainers)?;
        self.tell_datasets(screen, &*trainers)?;
        let config = WorkerConfig {
            name: self.name(),
            slots: self.slots.saturating_mul(devices.len() as u32),
            join_token,
            device: match self.trainers.rehearse {
                Some(_) => "none".to_string(),
                None => list(&devices),
            },
            hardware: Hardware::detect(),
            local: self.local,
            patience: self.patience,
            state_dir,
            limits: self.limits.limits(),
            ..WorkerConfig::default()
        };
        let worker = Worker::new(transport, trainers, config);
        let totals = block_on(async {
            let interrupt = Interrupt::listen()?;
            worker
                .run(interrupt.wait())
                .await
                .map_err(|error| self.failure(error))
        })?;
        let reports = plural(totals.reports, "report");
        let end = match totals.departure {
            Departure::Left => "left",
            Departure::KeepsStates => {
                "ended with states of clients on its disk: started again, it goes on with them"
            }
            Departure::Unknown => "ended; the coordinator could not be told",
        };
        screen.note(&format!("{end}; the coordinator accepted {reports}"));
        Ok(())
    }

    fn read_datasets(&self, trainers: &Arc<dyn TrainerFactory>) -> Result<(), Failure> {
        for name in &self.dataset {
            let read = trainers.dataset(name);
            read.map_err(|error| Failure::unusable("--dataset", &error))?;
        }
        Ok(())
    }

    /// Says which datasets this worker offers, and the folder that others would be found in.
    fn tell_datasets(&self, screen: &Screen, trainers: &dyn TrainerFactory) -> Result<(), Failure> {
        if self.trainers.rehearse.is_some() {
            return Ok(());
        }
        let mut offered = Vec::new();
        let limits = self.limits.limits();
        let mut known = trainers.datasets();
        known.retain(|dataset| limits.allows_dataset(&dataset.name));
        for dataset in known {
            offered.push(format!(
                "{} ({})",
                dataset.name,
                plural(dataset.train_examples, "example")
            ));
        }
        let folder = self.trainers.data_folder()?;
        let offers = if offered.is_empty() {
            "offers no datasets".to_string()
        } else {
            format!("offers the datasets {}", offered.join(", "))
        };
        screen.note(&format!(
            "{offers}; looked for others in {}",
            folder.display()
        ));
        Ok(())
    }

    fn name(&self) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        match System::host_name() {
            Some(host) if !host.is_empty() => host,
            _ => "worker".to_string(),
        }
    }

    fn failure(&self, error: WorkerError) -> Failure {
        match error {
            WorkerError::Refused(refusal) => Failure::Refused(refusal),
            error @ WorkerError::GaveUp { .. } => Failure::Unreachable {
                coordinator: self.coordinator.clone(),
                source: error.into(),
            },
            WorkerError::State(error) => Failure::unusable(
                "the worker's state (--state-dir DIR names another folder, --in-memory keeps none)",
                &error,
            ),
            error => Failure::because("the worker ended", error),
        }
    }
}
