//! The coordinator's limits. Each has a default.

use std::time::Duration;

use crate::{protocol::Token, telemetry::ClientMetricsLimit};

/// How a coordinator treats its workers, and what it takes at most.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct CoordinatorConfig {
    /// Who may do what.
    pub access: AccessConfig,
    /// Of workers.
    pub workers: WorkerLimits,
    /// Of reports on their way.
    pub uploads: UploadLimits,
    /// Of what workers say of their trainings.
    pub claims: ClaimLimits,
    /// Of jobs.
    pub jobs: JobLimits,
    /// Of the journal.
    pub journal: JournalLimits,
    /// Threads for the fold; 0: as many as there are cores.
    pub fold_threads: usize,
}

impl CoordinatorConfig {
    /// The defaults, but no tokens are asked of callers on this machine: [`AccessConfig::open`].
    pub fn open() -> Self {
        Self {
            access: AccessConfig {
                open: true,
                ..AccessConfig::default()
            },
            ..Self::default()
        }
    }
}

/// Who may ask a coordinator, and which workers it lets in. By default only code in its own process may, and who shows a token
/// that it has made: [`Operator::create_token`](crate::transport::Operator::create_token).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AccessConfig {
    /// A join token beside those that are made: any number of workers may register with it, as long as it is configured.
    pub join_token: Option<Token>,
    /// An operator's token of the scope `admin` beside those that are made.
    pub admin_token: Option<Token>,
    /// Whether callers on this machine need no token at all. Each user of the machine, and each web page in a browser there that
    /// gets past [`RouterConfig::hosts`](crate::transport::http::RouterConfig), is then an operator.
    pub open: bool,
    /// Whether a new worker waits until an operator lets it in.
    pub approve: bool,
    /// The workers that may register, each by its name or by the certificate that it shows; empty: any.
    pub allowed: Vec<AllowedWorker>,
    /// The most tokens that are known, those that have ended included.
    pub max_tokens: usize,
    /// When a worker whose reports are refused gets no more tasks.
    pub quarantine: QuarantineLimits,
}

impl Default for AccessConfig {
    fn default() -> Self {
        Self {
            join_token: None,
            admin_token: None,
            open: false,
            approve: false,
            allowed: Vec::new(),
            max_tokens: 1000,
            quarantine: QuarantineLimits::default(),
        }
    }
}

/// A worker that may register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedWorker {
    /// One of this name. A name alone is a claim: it keeps out mistakes, not liars who know it.
    Name(String),
    /// One whose TLS certificate has this SHA-256.
    Certificate([u8; 32]),
}

/// When a worker is put into quarantine. Only reports that are refused for what is in them count: malformed ones, values that
/// are not finite, more examples than there are. Each has a default.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct QuarantineLimits {
    /// After this many refused reports; 0: never.
    pub refusals: u32,
    /// All of them within this time.
    pub within: Duration,
    /// For this long; an operator can end it earlier.
    pub lasts: Duration,
}

impl Default for QuarantineLimits {
    fn default() -> Self {
        Self {
            refusals: 8,
            within: Duration::from_secs(600),
            lasts: Duration::from_secs(600),
        }
    }
}

/// What waits for the journal's disk. Each has a default.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct JournalLimits {
    /// The most batches that wait. While there are more, requests that would add to them are refused and may be sent again: a disk
    /// that stalls must not fill the memory.
    pub backlog: u64,
    /// How long a request that only reads waits for the disk. Then it is refused with what keeps the disk, and so is a change
    /// that an operator asks for meanwhile, before it is made.
    pub patience: Duration,
}

impl Default for JournalLimits {
    fn default() -> Self {
        // A batch is some hundred bytes, and a disk that works writes hundreds at once: this many are seconds of it.
        Self {
            backlog: 20_000,
            patience: Duration::from_secs(3),
        }
    }
}

/// How workers are kept in touch with, and how many and what is kept of them. Each has a default.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WorkerLimits {
    /// How often workers are told to send a heartbeat. One without a task may let its polls do.
    pub heartbeat: Duration,
    /// A worker that has been silent for this long is lost.
    pub expiry: Duration,
    /// The longest that a poll waits for a task; at most a third of `expiry` counts.
    pub poll_wait: Duration,
    /// The most workers that may be registered and live at once.
    pub max: usize,
    /// How many workers that are gone are remembered, for the operator.
    pub keep: usize,
    /// What a worker may say about itself.
    pub registration: RegistrationLimits,
    /// The most characters that are kept of a reason that a worker gives for a failure.
    pub max_reason: usize,
}

impl Default for WorkerLimits {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(10),
            // Nine heartbeats, or three polls: a worker whose connection is out for a minute keeps its clients.
            expiry: Duration::from_secs(90),
            poll_wait: Duration::from_secs(30),
            max: 20_000,
            keep: 256,
            registration: RegistrationLimits::default(),
            max_reason: 1000,
        }
    }
}

/// How reports are taken. Each has a default.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct UploadLimits {
    /// The largest body of a report, in bytes beyond the model's own size.
    pub overhead: u64,
    /// Bytes of reports that the memory spool takes at once.
    pub spool_bytes: u64,
    /// The most reports that are taken at once; further ones wait before their bodies are read.
    pub max: usize,
    /// An upload of at least this many bytes that breaks off leaves its part until the end of the round, so that its sender can
    /// go on; smaller ones begin again.
    pub resume_from: u64,
    /// How long an upload keeps its place among those that are taken at once while its sender is waited for, for each 256 KiB that
    /// come. An upload that is slower has a place only for what has come of it.
    pub idle: Duration,
    /// Bytes of reports that have come and wait for the spool, of all uploads together; what is beyond waits in the
    /// sender.
    pub buffer: usize,
    /// The most examples that a report of a worker's own data counts for.
    pub max_local_examples: u64,
}

impl Default for UploadLimits {
    fn default() -> Self {
        Self {
            overhead: 1 << 20,
            spool_bytes: 8 << 30,
            max: 64,
            resume_from: 4 << 20,
            idle: Duration::from_millis(50),
            buffer: 8 << 20,
            max_local_examples: 1_000_000_000,
        }
    }
}

/// How far the times and energies count that workers report. Each has a default.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClaimLimits {
    /// How many times as fast as the job's median worker a worker counts at most if data is dealt, clients are drawn or work is
    /// measured out by speed; and how many times as slow. At least 1; infinite: speeds count as they are measured.
    pub speed_spread: f64,
    /// The most power of a worker's device, in watts. The energy of a training that is above it does not count.
    pub watts: f64,
}

impl Default for ClaimLimits {
    fn default() -> Self {
        // A server with eight GPUs takes less than 10 kW.
        Self {
            speed_spread: 8.0,
            watts: 10_000.0,
        }
    }
}

/// How many jobs there may be, and what is kept of each. Each has a default.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct JobLimits {
    /// The most clients of a job.
    pub max_clients: u32,
    /// The most jobs that run at the same time. They share the workers; further ones wait in the queue.
    pub max_running: usize,
    /// The most jobs that wait in the queue.
    pub max_queued: usize,
    /// How many ended jobs are kept, each with its records, its log and its final model. The one that ended last always is.
    pub keep: usize,
    /// How long ended jobs are kept; none: as long as `keep` says.
    pub keep_for: Option<Duration>,
    /// Bytes of the final models of ended jobs that are kept; none: any number.
    pub keep_bytes: Option<u64>,
    /// Bytes of a job's event log that are in memory, and as many of its records of rounds. Older ones are in files.
    pub log_window: usize,
    /// The most entries of a list (jobs, workers, records of rounds) that one request gets at once. Longer lists are read
    /// page by page.
    pub max_page: usize,
    /// How much of the clients' own metrics the record of a round keeps.
    pub client_metrics: ClientMetricsLimit,
}

impl Default for JobLimits {
    fn default() -> Self {
        Self {
            max_clients: 1_000_000,
            max_running: 4,
            max_queued: 100,
            keep: 100,
            keep_for: None,
            keep_bytes: None,
            log_window: 1 << 20,
            max_page: 256,
            client_metrics: ClientMetricsLimit::default(),
        }
    }
}

/// The most that a worker may say about itself when it registers: it is kept, and shown to people. Each has a default.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RegistrationLimits {
    /// The longest name of a worker, a capability or an encoding, in bytes.
    pub name: usize,
    /// The longest other text, in bytes: a device, a part of the hardware, a dataset.
    pub text: usize,
    /// The most bytes of all texts together.
    pub total: usize,
    /// The most slots.
    pub slots: u32,
    /// The most datasets.
    pub datasets: usize,
    /// The most examples of a dataset, unless the data is the worker's own: the coordinator deals a list of all of them.
    pub examples: u64,
    /// The most capabilities.
    pub capabilities: usize,
    /// The most encodings.
    pub encodings: usize,
    /// The most GPUs.
    pub gpus: usize,
}

impl Default for RegistrationLimits {
    fn default() -> Self {
        Self {
            name: 128,
            text: 256,
            total: 8192,
            slots: 1024,
            datasets: 64,
            examples: 20_000_000,
            capabilities: 64,
            encodings: 16,
            gpus: 64,
        }
    }
}
