//! The coordinator's process: its arguments, its server, its end.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use clap::Args;

use super::{
    Advertise, Bind, Failure, Interrupt, Screen, TokenArgs, TrainerArgs, block_on,
    listen::reached_at,
    tailscale::{LocalAddress, local_addresses},
    values::{bytes, seconds},
};
use crate::{
    backend::DeviceSpec,
    coordinator::{Coordinator, CoordinatorConfig},
    protocol::Token,
    store::{DataFolder, FileModels, FileSpool, FileSpoolConfig},
    transport::http::{
        BindError, RouterConfig, ServerConfig, check_bind, listen, no_such_path, router, serve,
    },
};

/// How long the end waits for an evaluation or a fold to stop. They look at their flag in every batch and block.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How to run a coordinator.
#[derive(Debug, Clone, Args)]
pub struct CoordinatorArgs {
    /// Where to listen: ADDRESS:PORT, an address alone (port 8000), a port alone (loopback), or tailscale or
    /// tailscale:PORT, this machine's Tailscale address. Other addresses than loopback need a join token. Port 0: any that is free
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8000")]
    pub bind: Bind,
    /// By which address workers and operators reach it, if that is another: an address, a host or tailscale, each with
    /// :PORT or without [default: where it listens]
    #[arg(long, value_name = "ADDRESS")]
    pub advertise: Option<Advertise>,
    /// Another name than localhost by which this machine asks a coordinator without a join token. May be given more than once
    #[arg(long, value_name = "NAME")]
    pub allow_host: Vec<String>,
    /// What workers and operators must show.
    #[command(flatten)]
    pub token: TokenArgs,
    /// Models and data.
    #[command(flatten)]
    pub trainers: TrainerArgs,
    /// Where reports and models are kept.
    #[command(flatten)]
    pub storage: StorageArgs,
    /// Limits.
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// Where a coordinator keeps reports and global models.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Storage")]
pub struct StorageArgs {
    /// The folder for reports and global models, this coordinator's alone. What an earlier one left there is removed: jobs
    /// end with their coordinator [default: fedavg/coordinator-PORT among the user's data]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Keep reports and global models in memory
    #[arg(long, conflicts_with = "state_dir")]
    pub in_memory: bool,
    /// The most stored reports that are open at once
    #[arg(long, value_name = "N", default_value = "256")]
    pub open_reports: usize,
    /// Bring a report to the disk after so many bytes of it, and at its end; 0: at its end alone
    #[arg(long, value_name = "BYTES", default_value = "32MiB", value_parser = bytes)]
    pub sync_every: u64,
}

impl StorageArgs {
    /// The folder, if files are wanted.
    fn folder(&self, bind: SocketAddr) -> Result<Option<Arc<DataFolder>>, Failure> {
        if self.in_memory {
            return Ok(None);
        }
        let path = match &self.state_dir {
            Some(path) => path.clone(),
            None => {
                let data = dirs::data_local_dir().ok_or_else(|| {
                    let problem = "no folder for data is known here: name one with --state-dir";
                    Failure::Usage(problem.to_string())
                })?;
                data.join(format!("fedavg/coordinator-{}", bind.port()))
            }
        };
        let folder = DataFolder::open(path);
        folder
            .map(Some)
            .map_err(|error| Failure::because("can't keep reports and models", error))
    }

    fn spool(&self) -> FileSpoolConfig {
        FileSpoolConfig {
            max_open: self.open_reports,
            sync_every: self.sync_every,
            ..FileSpoolConfig::default()
        }
    }
}

/// How a coordinator treats its workers, and what it takes at most.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitArgs {
    /// How often workers are to send a heartbeat
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub heartbeat: Duration,
    /// A worker that was not heard of for so long is lost; its clients go to others
    #[arg(long, value_name = "SECONDS", default_value = "90", value_parser = seconds)]
    pub worker_expiry: Duration,
    /// The longest that a poll waits for a task
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub poll_wait: Duration,
    /// The largest body of a report, beyond the size of the model
    #[arg(long, value_name = "BYTES", default_value = "1MiB", value_parser = bytes)]
    pub report_overhead: u64,
    /// Reports of a round that are held in memory, with --in-memory
    #[arg(long, value_name = "BYTES", default_value = "8GiB", value_parser = bytes)]
    pub spool_bytes: u64,
    /// The most reports that are taken at once; further ones wait
    #[arg(long, value_name = "N", default_value = "64")]
    pub max_uploads: usize,
    /// Bytes of reports that have come and wait for the disk
    #[arg(long, value_name = "BYTES", default_value = "8MiB", value_parser = bytes)]
    pub upload_buffer: u64,
    /// The most examples that a report of a worker's own data counts for
    #[arg(long, value_name = "N", default_value = "1000000000")]
    pub max_local_examples: u64,
    /// The most workers at once
    #[arg(long, value_name = "N", default_value = "20000")]
    pub max_workers: usize,
    /// The most clients of a job
    #[arg(long, value_name = "N", default_value = "1000000", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_clients: u32,
    /// The most jobs that wait in the queue
    #[arg(long, value_name = "N", default_value = "100")]
    pub max_queued: usize,
    /// How many ended jobs are remembered, each with its final model
    #[arg(long, value_name = "N", default_value = "16")]
    pub keep_jobs: usize,
    /// How many entries of a job's event log are kept
    #[arg(long, value_name = "N", default_value = "100000")]
    pub keep_events: usize,
    /// Threads for the fold; 0: one per core
    #[arg(long, value_name = "N", default_value = "0")]
    pub fold_threads: usize,
    /// The fewest bytes a second of an upload, over all the time that the coordinator waits for it; 0: any
    #[arg(long, value_name = "BYTES", default_value = "1KiB", value_parser = bytes)]
    pub min_upload_rate: u64,
    /// The most connections at once; a worker has up to three
    #[arg(long, value_name = "N", default_value = "32768")]
    pub max_connections: usize,
    /// The largest body with parameters, whatever the model
    #[arg(long, value_name = "BYTES", default_value = "8GiB", value_parser = bytes)]
    pub max_body: u64,
}

impl CoordinatorArgs {
    /// Serves until Ctrl-C. Prints `listening on http://ADDRESS` to standard output once it listens, and in a second line
    /// how workers join, if it knows by which address.
    ///
    /// # Errors
    ///
    /// An address that it may not or can't listen on, or limits that don't fit each other.
    pub fn run(&self, screen: &Screen) -> Result<(), Failure> {
        let token = self.token.token()?;
        let has_token = token.is_some();
        let local = self.local_addresses();
        let bind = self.bind.resolve(&local)?;
        check_bind(bind, token.as_ref()).map_err(bind_failure)?;
        self.check_advertised(has_token)?;
        let advertise = self.advertise.as_ref();
        let advertise = advertise.map(|advertise| advertise.resolve(&local));
        let advertise = advertise.transpose()?;
        let config = self.limits.coordinator(token.clone())?;
        let trainers = self.trainers.trainers(&[DeviceSpec::Cpu])?;
        let folder = self.storage.folder(bind)?;
        block_on(async {
            let interrupt = Interrupt::listen()?;
            // Reads the datasets that are here.
            let coordinator = tokio::task::block_in_place(|| {
                let mut builder = Coordinator::builder(trainers).config(config);
                if let Some(folder) = folder {
                    tracing::info!(folder = %folder.path().display(), "reports and models are kept in files");
                    let spool = FileSpool::new(folder.clone(), self.storage.spool());
                    builder = builder
                        .spool(Arc::new(spool))
                        .models(Arc::new(FileModels::new(folder)));
                }
                builder.start()
            });
            let listener = listen(bind, token.as_ref()).await.map_err(bind_failure)?;
            let address = listener.local_addr();
            let address = address.map_err(|error| Failure::because("can't serve", error))?;
            let advertised = advertise.map(|place| place.url(address.port()));
            // Who closed standard output doesn't want to know where it listens.
            let _ = screen.print(&format!("listening on http://{address}"));
            tracing::info!(%address, "listening");
            match advertised.clone().or_else(|| reached_at(address)) {
                Some(url) => {
                    let _ = screen.print(&self.invitation(address, &url, has_token));
                }
                None => tracing::info!(
                    "--advertise names the address of this machine that workers are to use"
                ),
            }
            let mut limits = self.limits.router();
            limits.advertised = advertised;
            limits.hosts.clone_from(&self.allow_host);
            let router = router(Arc::new(coordinator.clone()), limits).fallback(no_such_path);
            serve(listener, router, self.limits.server(), interrupt.wait()).await;
            coordinator.stop(STOP_TIMEOUT).await;
            tracing::info!("stopped");
            Ok(())
        })
    }
}

impl CoordinatorArgs {
    /// The addresses of this machine, if one of them is to be looked for.
    fn local_addresses(&self) -> Vec<LocalAddress> {
        match (self.bind, &self.advertise) {
            (Bind::Tailscale { .. }, _) | (_, Some(Advertise::Tailscale { .. })) => {
                local_addresses()
            }
            _ => Vec::new(),
        }
    }

    /// Who is told an address of this coordinator to reach it by must be kept out by something, too.
    fn check_advertised(&self, has_token: bool) -> Result<(), Failure> {
        let is_for_others = |advertise: &Advertise| !advertise.is_loopback();
        if self.advertise.as_ref().is_some_and(is_for_others) && !has_token {
            Err(Failure::Usage(
                "--advertise names an address for other machines: that needs a join token (--join-token)"
                    .to_string(),
            ))
        } else {
            Ok(())
        }
    }

    /// How workers join: a line to copy, which does not show the join token.
    fn invitation(&self, listening: SocketAddr, url: &str, has_token: bool) -> String {
        let is_local = self.advertise.is_none() && listening.ip().to_canonical().is_loopback();
        let who = if is_local {
            "workers on this machine join with"
        } else {
            "workers join with"
        };
        let token = if has_token {
            " --join-token-file FILE"
        } else {
            ""
        };
        format!("{who}: fedavg-worker --coordinator {url}{token}")
    }
}

impl LimitArgs {
    fn coordinator(&self, join_token: Option<Token>) -> Result<CoordinatorConfig, Failure> {
        if self.heartbeat >= self.worker_expiry {
            return Err(Failure::Usage(
                "--heartbeat must be shorter than --worker-expiry".to_string(),
            ));
        }
        Ok(CoordinatorConfig {
            join_token,
            heartbeat: self.heartbeat,
            worker_expiry: self.worker_expiry,
            poll_wait: self.poll_wait,
            report_overhead: self.report_overhead,
            spool_bytes: self.spool_bytes,
            max_uploads: self.max_uploads,
            upload_buffer: usize::try_from(self.upload_buffer).unwrap_or(usize::MAX),
            max_local_examples: self.max_local_examples,
            max_workers: self.max_workers,
            max_clients: self.max_clients,
            max_queued: self.max_queued,
            keep_jobs: self.keep_jobs,
            keep_events: self.keep_events,
            fold_threads: self.fold_threads,
            ..CoordinatorConfig::default()
        })
    }

    fn server(&self) -> ServerConfig {
        ServerConfig {
            max_connections: self.max_connections,
            ..ServerConfig::default()
        }
    }

    fn router(&self) -> RouterConfig {
        let config = RouterConfig::default();
        RouterConfig {
            max_body: self.max_body,
            min_upload_rate: self.min_upload_rate,
            max_wait: config.max_wait.max(self.poll_wait),
            ..config
        }
    }
}

fn bind_failure(error: BindError) -> Failure {
    match error {
        BindError::NeedsJoinToken(_) => Failure::Usage(format!("{error} (--join-token)")),
        error => Failure::because("can't serve", error),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        coordinator: CoordinatorArgs,
    }

    fn parse(arguments: &[&str]) -> CoordinatorArgs {
        Command::try_parse_from([&["test"], arguments].concat())
            .unwrap()
            .coordinator
    }

    #[test]
    fn the_flags_defaults_are_the_configurations() {
        let limits = parse(&[]).limits;
        let config = limits.coordinator(None).unwrap();
        assert_eq!(
            format!("{config:?}"),
            format!("{:?}", CoordinatorConfig::default())
        );
        assert_eq!(parse(&[]).storage.spool(), FileSpoolConfig::default());
        assert_eq!(
            format!("{:?}", limits.server()),
            format!("{:?}", ServerConfig::default())
        );
        assert_eq!(
            format!("{:?}", limits.router()),
            format!("{:?}", RouterConfig::default())
        );
    }

    #[test]
    fn heartbeats_that_come_too_seldom_are_refused() {
        let limits = parse(&["--heartbeat=2", "--worker-expiry=2"]).limits;
        assert_eq!(limits.coordinator(None).unwrap_err().code(), 2);
    }
}
