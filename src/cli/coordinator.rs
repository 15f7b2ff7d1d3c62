//! The coordinator's process: its arguments, its server, its end.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use clap::Args;

use super::{
    AccessArgs, Advertise, Bind, CallerArgs, ClaimArgs, Failure, Interrupt, ProxyArgs, Screen,
    ServerTlsArgs, TrainerArgs,
    access::FirstTokens,
    block_on,
    listen::{reached_at, url_of},
    tailscale::{LocalAddress, local_addresses},
    text_file::warn_if_shared,
    values::{
        any_u32, any_u64, at_least_one, bytes, bytes_above_0, count, seconds, u32_above_0, whole,
    },
};
use crate::{
    backend::DeviceSpec,
    coordinator::{
        AccessConfig, AllowedWorker, Coordinator, CoordinatorBuilder, CoordinatorConfig, JobLimits,
        JournalLimits, RegistrationLimits, UploadLimits, WorkerLimits,
    },
    parameters::HeaderLimits,
    store::{DataFolder, FileModels, FileSpool, FileSpoolConfig, SqliteJournal, StoreError},
    transport::http::{
        BindError, RouterConfig, ServerConfig, ServerTls, check_bind, listen, no_such_path, router,
        serve,
    },
};

/// How long the end waits for an evaluation or a fold to stop, and then for the journal. The first two look at their flag in
/// every batch and block. Service managers are patient for longer than both together.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// A worker's three, and one for the operator.
const LEAST_CONNECTIONS: usize = 4;

/// How to run a coordinator.
#[derive(Debug, Clone, Args)]
pub struct CoordinatorArgs {
    /// The address to listen on: ADDRESS:PORT, ADDRESS (port 8000), PORT (this machine alone), tailscale or tailscale:PORT
    /// (this machine's Tailscale address). Port 0 takes any free port
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8000")]
    pub bind: Bind,
    /// The address that workers are told to use, if it is not the one of --bind: a host name, an address or tailscale, each
    /// with or without :PORT, which is the port of --bind if left out. https:// before it means that a proxy in front of the
    /// coordinator speaks TLS: then the port is 443 if left out [default: the address of --bind]
    #[arg(long, value_name = "ADDRESS")]
    pub advertise: Option<Advertise>,
    /// With --open, requests must name localhost or this machine's own address as their host; this allows one
    /// more name. May be given more than once
    #[arg(long, value_name = "NAME", requires = "open")]
    pub allow_host: Vec<String>,
    /// Who may do what.
    #[command(flatten)]
    pub access: AccessArgs,
    /// TLS, or plain HTTP.
    #[command(flatten)]
    pub tls: ServerTlsArgs,
    /// Models and data.
    #[command(flatten)]
    pub trainers: TrainerArgs,
    /// Storage.
    #[command(flatten)]
    pub storage: StorageArgs,
    /// Limits.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Proxies.
    #[command(flatten)]
    pub proxies: ProxyArgs,
}

/// How a coordinator keeps reports and global models.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Storage")]
pub struct StorageArgs {
    /// The folder for all that this coordinator knows: jobs, workers, reports, models, logs. It goes on with what it finds there,
    /// whatever ended it before [default: fedavg/coordinator-PORT in your data folder]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Keep everything in memory: jobs end with this coordinator. Long logs are in temporary files
    #[arg(long, conflicts_with = "state_dir")]
    pub in_memory: bool,
    /// The most report files that are open at once
    #[arg(long, value_name = "N", default_value = "256", value_parser = at_least_one)]
    pub open_reports: usize,
    /// Flush a report to the disk each time that this many bytes of it have come, and at its end; 0: only at its end
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
                // By port, so that two coordinators of one user need no flag to have a folder each.
                data.join(format!("fedavg/coordinator-{}", bind.port()))
            }
        };
        let folder = DataFolder::open(&path);
        if folder.is_ok() {
            warn_if_shared(&path, "chmod 700");
        }
        folder.map(Some).map_err(|error| match error {
            StoreError::InUse { path } => Failure::Usage(format!(
                "{path} is in use by another coordinator: stop that one, or choose another --state-dir"
            )),
            // To free space is enough: the folder is the right one.
            error @ StoreError::Full { .. } => {
                Failure::because("can't keep reports and models", error)
            }
            error => Failure::unusable(
                "can't keep reports and models: name a folder that can be written to with --state-dir",
                &error,
            ),
        })
    }

    /// Goes on with what is in the folder.
    fn recover(
        &self,
        builder: CoordinatorBuilder,
        folder: Arc<DataFolder>,
    ) -> Result<Coordinator, Failure> {
        let what = format!("can't go on with what is in {}", folder.path().display());
        let aside = folder.put_aside_unjournaled();
        if let Some(aside) = aside.map_err(|error| Failure::because(&what, error))? {
            tracing::warn!(
                models = %aside.display(),
                "the folder is of version 0.1, whose jobs ended with their coordinator: their models are put aside"
            );
        }
        let journal = SqliteJournal::open(folder.clone());
        let journal = journal.map_err(|error| Failure::because(&what, error))?;
        tracing::info!(folder = %folder.path().display(), "jobs, reports and models are kept in files");
        builder
            .spool(Arc::new(FileSpool::new(folder.clone(), self.spool())))
            .models(Arc::new(FileModels::new(folder.clone())))
            .recover(Arc::new(journal))
            .map_err(|error| Failure::because(&what, error))
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
    /// How often a worker that trains says that it is alive, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub heartbeat: Duration,
    /// A worker that has been silent for this long, in seconds, counts as lost; other workers get its clients
    #[arg(long, value_name = "SECONDS", default_value = "90", value_parser = seconds)]
    pub worker_expiry: Duration,
    /// The longest that a worker's request for a task is held open, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub poll_wait: Duration,
    /// How much larger than the model a report may be
    #[arg(long, value_name = "BYTES", default_value = "1MiB", value_parser = bytes)]
    pub report_overhead: u64,
    /// With --in-memory: the memory for the reports of a round
    #[arg(long, value_name = "BYTES", default_value = "8GiB", value_parser = bytes_above_0)]
    pub spool_bytes: u64,
    /// The most reports that are received at once; others wait
    #[arg(long, value_name = "N", default_value = "64", value_parser = at_least_one)]
    pub max_uploads: usize,
    /// An upload of at least this many bytes that breaks off goes on where it broke; smaller ones begin again
    #[arg(long, value_name = "BYTES", default_value = "4MiB", value_parser = bytes)]
    pub resume_uploads_from: u64,
    /// The memory for received bytes that wait for the disk
    #[arg(long, value_name = "BYTES", default_value = "8MiB", value_parser = bytes_above_0)]
    pub upload_buffer: u64,
    /// The most changes that wait for the disk of the journal; workers' further requests are refused until it keeps up
    #[arg(long, value_name = "N", default_value = "20000", value_parser = at_least_one)]
    pub journal_backlog: usize,
    /// The most examples that a worker with --local data counts for
    #[arg(long, value_name = "N", default_value = "1000000000", value_parser = any_u64)]
    pub max_local_examples: u64,
    /// The most workers at once
    #[arg(long, value_name = "N", default_value = "20000", value_parser = at_least_one)]
    pub max_workers: usize,
    /// The most examples of a dataset that is dealt to clients
    #[arg(long, value_name = "N", default_value = "20000000", value_parser = any_u64)]
    pub max_examples: u64,
    /// How many lost workers are remembered; 0: none
    #[arg(long, value_name = "N", default_value = "256", value_parser = count)]
    pub keep_workers: usize,
    /// The most clients of a job
    #[arg(long, value_name = "N", default_value = "1000000", value_parser = u32_above_0)]
    pub max_clients: u32,
    /// The most jobs that run at the same time, and share the workers
    #[arg(long, value_name = "N", default_value = "4", value_parser = at_least_one)]
    pub max_running: usize,
    /// The most jobs that wait their turn
    #[arg(long, value_name = "N", default_value = "100", value_parser = at_least_one)]
    pub max_queued: usize,
    /// How many ended jobs are kept, each with its records, its log and its final model. The job that ended last is
    /// always kept, so 0 means 1
    #[arg(long, value_name = "N", default_value = "100", value_parser = count)]
    pub keep_jobs: usize,
    /// Forget a job this many days after its end; 0: as soon as another job has ended. The job that ended last is always
    /// kept [default: never]
    #[arg(long, value_name = "DAYS", value_parser = any_u32)]
    pub keep_days: Option<u32>,
    /// Forget the oldest ended jobs if the final models of all ended jobs have more bytes than this; 0: keep only the job
    /// that ended last, which is always kept [default: no limit]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub keep_bytes: Option<u64>,
    /// Bytes of a job's event log that are in memory, and as many of its records of rounds; all are in the state folder, or with
    /// --in-memory the older ones in temporary files (TMPDIR). Nothing is dropped before the job is
    #[arg(long, value_name = "BYTES", default_value = "1MiB", value_parser = bytes)]
    pub log_window: u64,
    /// How many threads average the reports; 0: one per core
    #[arg(long, value_name = "N", default_value = "0", value_parser = count)]
    pub fold_threads: usize,
    /// An upload that is slower than this many bytes a second is ended; 0: no upload is too slow
    #[arg(long, value_name = "BYTES", default_value = "1KiB", value_parser = bytes)]
    pub min_upload_rate: u64,
    /// A reader of an answer that is slower than this many bytes a second is given up; 0: no reader is too slow
    #[arg(long, value_name = "BYTES", default_value = "1KiB", value_parser = bytes)]
    pub min_download_rate: u64,
    /// A sender or a reader is too slow if it is slower than that over this many seconds in which the coordinator waited for it
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub rate_grace: Duration,
    /// A body of which nothing comes for this many seconds is ended, and so is an answer of which nothing is read
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub stall_timeout: Duration,
    /// The most connections at once, at least 4; a worker has up to three of them
    #[arg(long, value_name = "N", default_value = "32768", value_parser = connections)]
    pub max_connections: usize,
    /// The largest header of an initial model
    #[arg(long, value_name = "BYTES", default_value = "16MiB", value_parser = bytes_above_0)]
    pub max_header: u64,
    /// The most tensors of an initial model
    #[arg(long, value_name = "N", default_value = "100000", value_parser = at_least_one)]
    pub max_tensors: usize,
    /// The longest name of a tensor of an initial model
    #[arg(long, value_name = "BYTES", default_value = "1KiB", value_parser = bytes_above_0)]
    pub max_tensor_name: u64,
    /// The largest model or report that is received
    #[arg(long, value_name = "BYTES", default_value = "8GiB", value_parser = bytes_above_0)]
    pub max_body: u64,
    /// Of what workers report.
    #[command(flatten)]
    pub claims: ClaimArgs,
    /// Of each caller.
    #[command(flatten)]
    pub callers: CallerArgs,
}

impl CoordinatorArgs {
    /// Serves until Ctrl-C. Prints `listening on URL` to standard output once it listens, and then how workers join and operators
    /// connect. The first start makes a join token, which this is the only place to show, and an operator's, in a file.
    ///
    /// # Errors
    ///
    /// An address that it may not or can't listen on, or limits that don't fit each other.
    pub fn run(&self, screen: &Screen) -> Result<(), Failure> {
        let access = self.access.config()?;
        let is_open = access.open;
        let local = self.local_addresses();
        let bind = self.bind.resolve(&local)?;
        // `listen` checks that again. Here nothing has been read or opened yet.
        check_bind(bind, is_open).map_err(bind_failure)?;
        self.check_advertised()?;
        self.check_allowed()?;
        self.proxies.check(is_open)?;
        let advertise = self.advertise.as_ref();
        let advertise = advertise.map(|advertise| advertise.resolve(&local));
        let advertise = advertise.transpose()?;
        let tls = self.tls.check(bind, advertise.as_ref())?;
        let scheme = tls.scheme();
        let config = self.limits.coordinator(access)?;
        // It evaluates on the CPU alone, so that its machine needs no GPU.
        let trainers = self.trainers.trainers(&[DeviceSpec::Cpu])?;
        block_on(async {
            let interrupt = Interrupt::listen()?;
            // Who connects from here on waits until the coordinator has read its folder.
            let listener = listen(bind, is_open).await.map_err(bind_failure)?;
            // Last of what can fail on arguments: a mistyped flag, or a port in use, must not make a folder.
            let folder = self.storage.folder(bind)?;
            let state_dir = folder.as_ref().map(|folder| folder.path().to_owned());
            let tls = tls.server(state_dir.as_deref(), advertise.as_ref())?;
            // Reads the datasets that are here.
            let coordinator = tokio::task::block_in_place(|| {
                let builder = Coordinator::builder(trainers).config(config);
                match folder {
                    Some(folder) => self.storage.recover(builder, folder),
                    None => Ok(builder.start()),
                }
            })?;
            let tokens = self.access.first_tokens(&coordinator, state_dir.as_deref());
            let tokens = tokens.await?;
            let address = listener.local_addr();
            let address = address.map_err(|error| Failure::because("can't serve", error))?;
            let advertised = advertise.map(|place| place.url(scheme, address.port()));
            // If standard output is closed, nobody reads the address; the coordinator serves all the same.
            let _ = screen.print(&format!("listening on {}", url_of(scheme, address)));
            tracing::info!(%address, "listening");
            let url = advertised.clone().or_else(|| reached_at(scheme, address));
            let url = url.unwrap_or_else(|| {
                tracing::info!("workers need an address of this machine: --advertise ADDRESS puts it into the lines to copy");
                format!("{}ADDRESS:{}", scheme.prefix(), address.port())
            });
            let shown = screen.print(&self.invitation(address, &url, &tokens, tls.as_ref()));
            tokens.told(&coordinator, shown).await;
            if !self.access.open {
                tokens.tell();
            }
            let mut limits = self.limits.router();
            limits.advertised = advertised;
            self.proxies.apply(&mut limits.callers);
            limits.hosts.clone_from(&self.allow_host);
            let router = router(Arc::new(coordinator.clone()), limits).fallback(no_such_path);
            let mut broken = None;
            let end = async {
                tokio::select! {
                    () = interrupt.wait() => {}
                    error = coordinator.broken() => broken = Some(error),
                }
            };
            let mut server = self.limits.server();
            server.tls = tls;
            self.proxies.apply(&mut server.callers);
            serve(listener, router, server, end).await;
            // After the server: a submission that still came would begin to compute again.
            coordinator.stop(STOP_TIMEOUT).await;
            if let Some(error) = broken {
                return Err(Failure::because("the coordinator can't go on", error));
            }
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

    /// A client's certificate is only asked for with mutual TLS: without it, a list of them would keep everybody out.
    fn check_allowed(&self) -> Result<(), Failure> {
        let mut allowed = self.access.allow_worker.iter();
        let names_certificate =
            allowed.any(|worker| matches!(worker, AllowedWorker::Certificate(_)));
        if names_certificate && self.tls.tls_client_ca.is_none() {
            return Err(Failure::Usage(
                "--allow-worker sha256:... names a client's certificate, which only --tls-client-ca asks for: give that, too"
                    .to_string(),
            ));
        }
        Ok(())
    }

    /// With --advertise, something in front of a loopback address lets other machines in: to the coordinator they are all here.
    fn check_advertised(&self) -> Result<(), Failure> {
        match &self.advertise {
            Some(advertise) if !advertise.is_loopback() && self.access.open => Err(Failure::Usage(
                "--advertise names an address for other machines, and --open would let all of them in: leave one of them out"
                    .to_string(),
            )),
            _ => Ok(()),
        }
    }

    /// How workers join and operators connect: lines to copy.
    fn invitation(
        &self,
        listening: SocketAddr,
        url: &str,
        tokens: &FirstTokens,
        tls: Option<&ServerTls>,
    ) -> String {
        // With --advertise, something in front of a loopback address (a tunnel, a proxy) lets other machines in.
        let is_local = self.advertise.is_none() && listening.ip().to_canonical().is_loopback();
        let who = if is_local {
            "workers on this machine"
        } else {
            "workers"
        };
        let tls = self.tls.join_flags(url, tls);
        tokens.lines(who, &format!("{url}{tls}"), self.access.open)
    }
}

impl LimitArgs {
    fn coordinator(&self, access: AccessConfig) -> Result<CoordinatorConfig, Failure> {
        // Every worker that trains would be lost between two of its heartbeats.
        if self.heartbeat >= self.worker_expiry {
            return Err(Failure::Usage(
                "--heartbeat must be shorter than --worker-expiry".to_string(),
            ));
        }
        Ok(CoordinatorConfig {
            access,
            fold_threads: self.fold_threads,
            workers: WorkerLimits {
                heartbeat: self.heartbeat,
                expiry: self.worker_expiry,
                poll_wait: self.poll_wait,
                max: self.max_workers,
                keep: self.keep_workers,
                registration: RegistrationLimits {
                    examples: self.max_examples,
                    ..RegistrationLimits::default()
                },
                ..WorkerLimits::default()
            },
            uploads: UploadLimits {
                overhead: self.report_overhead,
                spool_bytes: self.spool_bytes,
                max: self.max_uploads,
                resume_from: self.resume_uploads_from,
                // On a machine of 32 bits, a limit beyond its memory is no limit.
                buffer: usize::try_from(self.upload_buffer).unwrap_or(usize::MAX),
                max_local_examples: self.max_local_examples,
                ..UploadLimits::default()
            },
            jobs: JobLimits {
                max_clients: self.max_clients,
                max_running: self.max_running,
                max_queued: self.max_queued,
                keep: self.keep_jobs,
                keep_for: self.keep_days.map(days),
                keep_bytes: self.keep_bytes,
                log_window: usize::try_from(self.log_window).unwrap_or(usize::MAX),
                ..JobLimits::default()
            },
            claims: self.claims.limits(),
            journal: JournalLimits {
                backlog: self.journal_backlog as u64,
                ..JournalLimits::default()
            },
            ..CoordinatorConfig::default()
        })
    }

    fn server(&self) -> ServerConfig {
        ServerConfig {
            max_connections: self.max_connections,
            min_download_rate: self.min_download_rate,
            download_grace: self.rate_grace,
            stall_timeout: self.stall_timeout,
            callers: self.callers.limits(),
            ..ServerConfig::default()
        }
    }

    fn router(&self) -> RouterConfig {
        let config = RouterConfig::default();
        RouterConfig {
            max_body: self.max_body,
            header: HeaderLimits {
                bytes: usize::try_from(self.max_header).unwrap_or(usize::MAX),
                tensors: self.max_tensors,
                name: usize::try_from(self.max_tensor_name).unwrap_or(usize::MAX),
                ..config.header
            },
            min_upload_rate: self.min_upload_rate,
            upload_grace: self.rate_grace,
            stall_timeout: self.stall_timeout,
            callers: self.callers.limits(),
            // The router shortens the wait of a poll to its own limit; --poll-wait must not be cut by it.
            max_wait: config.max_wait.max(self.poll_wait),
            ..config
        }
    }
}

fn days(days: u32) -> Duration {
    Duration::from_secs(u64::from(days) * 24 * 3600)
}

/// A number of connections that leaves room for the operator beside a worker.
fn connections(text: &str) -> Result<usize, String> {
    whole(text, LEAST_CONNECTIONS as u64, usize::MAX as u64).map(|number| number as usize)
}

fn bind_failure(error: BindError) -> Failure {
    match error {
        BindError::Open(_) => Failure::Usage(format!("{error}: leave out --open")),
        BindError::Listen { address, source } if source.kind() == io::ErrorKind::AddrInUse => {
            Failure::Usage(format!(
                "port {} of {} is in use; is a coordinator already running? Choose another --bind",
                address.port(),
                address.ip()
            ))
        }
        BindError::Listen { address, source } => Failure::Usage(format!(
            "--bind {address}: this machine can't listen there: {source}"
        )),
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
        let config = limits.coordinator(AccessConfig::default()).unwrap();
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
    fn each_limit_says_which_numbers_it_takes() {
        let mut refused = Vec::new();
        let command = LimitArgs::augment_args(clap::Command::new("test"));
        for argument in command.get_arguments() {
            let flag = argument.get_long().unwrap();
            for wrong in ["-1", "99999999999999999999999", "many"] {
                let given = format!("--{flag}={wrong}");
                let told = Command::try_parse_from(["test", &given]).err();
                let told = told
                    .unwrap_or_else(|| panic!("{given} is taken"))
                    .to_string();
                let says = ["from ", "above 0", "too long", "such as"];
                assert!(says.iter().any(|part| told.contains(part)), "{told}");
                refused.push(flag.to_string());
            }
        }
        assert!(refused.len() > 60, "{refused:?}");
    }

    #[test]
    fn heartbeats_that_come_too_seldom_are_refused() {
        let limits = parse(&["--heartbeat=2", "--worker-expiry=2"]).limits;
        assert_eq!(
            limits
                .coordinator(AccessConfig::default())
                .unwrap_err()
                .code(),
            2
        );
    }
}
