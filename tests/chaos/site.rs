//! A coordinator and its workers in folders that outlive them.

use std::{
    collections::VecDeque,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU16, Ordering},
    time::Instant,
};

use fedavg::{ids::JobId, protocol::JobSummary};

use super::{
    binaries::binary,
    plan::JobPlan,
    process::{Finished, LIMIT, Process},
    proxy::Proxy,
};

/// A program that is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    Coordinator,
    Worker,
}

/// How a site's processes are started.
#[derive(Default)]
pub struct Setup {
    /// Seconds.
    pub expiry: u64,
    /// Of each worker.
    pub slots: u64,
    /// Further arguments of the coordinator.
    pub arguments: String,
    /// Where coordinators abort, each start the next one; see `FEDAVG_ABORT_AT`.
    pub coordinator_aborts: VecDeque<String>,
    /// Where workers abort.
    pub worker_aborts: VecDeque<String>,
}

/// What is where in the folder of a site.
pub struct Site {
    pub folder: PathBuf,
    address: String,
    setup: Setup,
    starts: usize,
    pub coordinator: Process,
    /// Whether it is known to listen.
    listens: bool,
    pub workers: Vec<Worker>,
    /// The link of each worker to the coordinator; without one, a worker is beside it.
    pub links: Vec<Proxy>,
    /// How many processes have aborted.
    pub aborted: usize,
}

/// A worker that is killed and started again under its name.
pub struct Worker {
    name: String,
    pub process: Process,
}

/// So that the small reports of these jobs, too, go on where their upload broke off.
pub const RESUMES_ALL: &str = "--resume-uploads-from 1024 --sync-every 4096";

impl Site {
    /// A coordinator that listens, without workers.
    pub fn start(folder: &Path, expiry: u64, slots: u64) -> Self {
        Self::start_with(folder, expiry, slots, "")
    }

    /// The same with further arguments for the coordinator.
    pub fn start_with(folder: &Path, expiry: u64, slots: u64, arguments: &str) -> Self {
        let setup = Setup {
            expiry,
            slots,
            arguments: arguments.to_string(),
            ..Setup::default()
        };
        let mut site = Self::begin(folder, setup);
        site.listens();
        site
    }

    /// A coordinator that has just been started, without workers.
    pub fn begin(folder: &Path, mut setup: Setup) -> Self {
        fs::create_dir_all(folder.join("logs")).unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let coordinator = start_coordinator(folder, &address, &mut setup, 1);
        Self {
            folder: folder.to_path_buf(),
            address,
            setup,
            starts: 1,
            coordinator,
            listens: false,
            workers: Vec::new(),
            links: Vec::new(),
            aborted: 0,
        }
    }

    /// Starts again what has aborted, and waits until the coordinator listens.
    pub fn revive(&mut self) {
        let start = Instant::now();
        while !self.listens || self.coordinator.has_ended() {
            assert!(start.elapsed() < LIMIT, "the coordinator does not listen");
            if self.coordinator.has_ended() {
                let ended = self.coordinator.remains();
                self.count_abort(&ended);
                self.start_again();
            }
            let line = self.coordinator.out.within(LIMIT, &["listening on "]);
            self.listens = line.is_some();
        }
        for index in 0..self.workers.len() {
            if self.workers[index].process.has_ended() {
                let ended = self.workers[index].process.remains();
                self.count_abort(&ended);
                let name = self.workers[index].name.clone();
                self.workers[index].process = self.start_worker(index, &name);
            }
        }
    }

    /// Counts a process that must have aborted.
    pub fn count_abort(&mut self, ended: &Finished) {
        assert_eq!(ended.code, None, "it ended by itself: {ended:#?}");
        self.aborted += 1;
    }

    fn start_again(&mut self) {
        self.starts += 1;
        let (folder, address) = (&self.folder, &self.address);
        self.coordinator = start_coordinator(folder, address, &mut self.setup, self.starts);
        self.listens = false;
    }

    pub fn state(&self) -> PathBuf {
        self.folder.join("coordinator")
    }

    pub fn logs(&self) -> PathBuf {
        self.folder.join("logs")
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until the coordinator listens.
    pub fn listens(&mut self) {
        self.coordinator.out.until("listening on ");
        self.listens = true;
    }

    /// Kills the coordinator and hands its remains to `look`, before the next one starts.
    pub fn restart_coordinator<T>(&mut self, look: impl FnOnce(&Path, &Finished) -> T) -> T {
        let was_alive = !self.coordinator.has_ended();
        self.coordinator.signal_kill();
        // Its streams end with it: then all that it printed has been read.
        let finished = self.coordinator.remains();
        assert!(was_alive, "the coordinator ended by itself: {finished:#?}");
        let looked = look(&self.state(), &finished);
        self.start_again();
        looked
    }

    /// Starts this many workers.
    pub fn add_workers(&mut self, count: u64) {
        for _ in 0..count {
            let index = self.workers.len();
            let name = format!("worker-{}", index + 1);
            let process = self.start_worker(index, &name);
            self.workers.push(Worker { name, process });
        }
    }

    /// Waits until all workers are registered.
    pub fn registered(&mut self) {
        for worker in &mut self.workers {
            worker.process.err.until("registered");
        }
    }

    /// Kills a worker and starts it again. What it printed.
    pub fn restart_worker(&mut self, index: usize) -> Finished {
        let was_alive = !self.workers[index].process.has_ended();
        let name = self.workers[index].name.clone();
        self.workers[index].process.signal_kill();
        let finished = self.workers[index].process.remains();
        assert!(was_alive, "{name} ended by itself: {finished:#?}");
        self.workers[index].process = self.start_worker(index, &name);
        finished
    }

    fn start_worker(&mut self, index: usize, name: &str) -> Process {
        let link = self.links.get(index).map(|link| link.url.clone());
        let (url, slots) = (link.unwrap_or_else(|| self.url()), self.setup.slots);
        let arguments = format!("--coordinator {url} --name {name} --slots {slots}");
        let mut command = binary(env!("CARGO_BIN_EXE_fedavg-worker"), &arguments);
        command.arg("--state-dir").arg(self.folder.join("workers"));
        let aborts = &mut self.setup.worker_aborts;
        steps(&mut command, &self.folder, Program::Worker, aborts);
        self.starts += 1;
        let log = format!("{:04}-{name}", self.starts);
        Process::start_logged(&mut command, &self.logs(), &log)
    }

    /// Runs a command of the operator to its end.
    pub fn operator(&self, arguments: &str) -> Finished {
        let arguments = format!("{arguments} --coordinator {}", self.url());
        Process::start(&mut binary(env!("CARGO_BIN_EXE_fedavg"), &arguments)).finish()
    }

    /// Submits a job that waits for all workers.
    pub fn submit(&self, plan: &JobPlan, workers: u64) -> JobId {
        let submitted = self.try_submit(plan, workers);
        submitted.unwrap_or_else(|submitted| panic!("{submitted:?}"))
    }

    /// The same; or why not.
    pub fn try_submit(&self, plan: &JobPlan, workers: u64) -> Result<JobId, Finished> {
        let flags = &plan.flags;
        let submitted = self.operator(&format!("submit {flags} --min-workers {workers} --json"));
        if submitted.code != Some(0) {
            return Err(submitted);
        }
        let summary: JobSummary = serde_json::from_str(&submitted.out).unwrap();
        Ok(summary.job)
    }

    /// Starts to watch a job to its end.
    pub fn begin_watch(&self, job: JobId) -> Process {
        let url = self.url();
        let arguments = format!("watch {job} --json --patience 60 --coordinator {url}");
        let mut command = binary(env!("CARGO_BIN_EXE_fedavg"), &arguments);
        Process::start_logged(&mut command, &self.logs(), &format!("watch-{job}"))
    }

    /// Watches a job to its end.
    pub fn watch(&self, job: JobId) -> Process {
        let mut watch = self.begin_watch(job);
        // Its first event: it is connected.
        let first = watch.out.next();
        assert!(first.is_some(), "{:#?}", watch.finish());
        watch
    }

    /// Ctrl-C for all, the workers first.
    pub fn stop(self) {
        for worker in self.workers {
            worker.process.interrupt();
            let ended = worker.process.finish();
            assert_eq!(ended.code, Some(0), "{}: {ended:#?}", worker.name);
        }
        self.coordinator.interrupt();
        let ended = self.coordinator.finish();
        assert_eq!(ended.code, Some(0), "{ended:#?}");
    }
}

fn start_coordinator(folder: &Path, address: &str, setup: &mut Setup, start: usize) -> Process {
    let Setup {
        expiry, arguments, ..
    } = &setup;
    let arguments = format!(
        "--open --bind {address} --heartbeat 0.2 --worker-expiry {expiry} --log fedavg=info,fedavg::coordinator=debug {arguments}"
    );
    let mut command = binary(env!("CARGO_BIN_EXE_fedavg-coordinator"), &arguments);
    command.arg("--state-dir").arg(folder.join("coordinator"));
    let aborts = &mut setup.coordinator_aborts;
    steps(&mut command, folder, Program::Coordinator, aborts);
    let log = format!("{start:04}-coordinator");
    Process::start_logged(&mut command, &folder.join("logs"), &log)
}

/// Has a process note its steps on the disk, and abort at one of them. Without feature `testing` it does neither.
fn steps(command: &mut Command, folder: &Path, program: Program, aborts: &mut VecDeque<String>) {
    command.env("FEDAVG_STEPS_FILE", steps_file(folder, program));
    match aborts.pop_front() {
        Some(point) => command.env("FEDAVG_ABORT_AT", point),
        None => command.env_remove("FEDAVG_ABORT_AT"),
    };
}

/// The sites of all steps of a program, a line for each.
pub fn steps_file(folder: &Path, program: Program) -> PathBuf {
    folder.join(format!("steps-{program:?}"))
}

/// A port that nobody has, and that the operating system gives to nobody while the coordinator is away: it takes those of
/// connections from higher ones.
fn free_port() -> u16 {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + (std::process::id() % 10_000) as u16;
    loop {
        let port = first + TRIED.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
