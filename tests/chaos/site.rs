//! A coordinator and its workers in folders that outlive them.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU16, Ordering},
};

use fedavg::{ids::JobId, protocol::JobSummary};

use super::{
    binaries::binary,
    plan::JobPlan,
    process::{Finished, Process},
    proxy::Proxy,
};

/// What is where in the folder of a site.
pub struct Site {
    pub folder: PathBuf,
    address: String,
    expiry: u64,
    slots: u64,
    starts: usize,
    pub coordinator: Process,
    pub workers: Vec<Worker>,
    /// The link of each worker to the coordinator; without one, a worker is beside it.
    pub links: Vec<Proxy>,
}

/// A worker that is killed and started again under its name.
pub struct Worker {
    name: String,
    pub process: Process,
}

impl Site {
    /// A coordinator that listens, without workers.
    pub fn start(folder: &Path, expiry: u64, slots: u64) -> Self {
        fs::create_dir_all(folder.join("logs")).unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let mut starts = 0;
        let coordinator = start_coordinator(folder, &address, expiry, &mut starts);
        let mut site = Self {
            folder: folder.to_path_buf(),
            address,
            expiry,
            slots,
            starts,
            coordinator,
            workers: Vec::new(),
            links: Vec::new(),
        };
        site.listens();
        site
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
    }

    /// Kills the coordinator and hands its remains to `look`, before the next one starts.
    pub fn restart_coordinator<T>(&mut self, look: impl FnOnce(&Path, &Finished) -> T) -> T {
        let was_alive = !self.coordinator.has_ended();
        self.coordinator.signal_kill();
        // Its streams end with it: then all that it printed has been read.
        let finished = self.coordinator.remains();
        assert!(was_alive, "the coordinator ended by itself: {finished:#?}");
        let looked = look(&self.state(), &finished);
        self.coordinator =
            start_coordinator(&self.folder, &self.address, self.expiry, &mut self.starts);
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
        let (url, slots) = (link.unwrap_or_else(|| self.url()), self.slots);
        let arguments = format!("--coordinator {url} --name {name} --slots {slots}");
        let mut command = binary(env!("CARGO_BIN_EXE_fedavg-worker"), &arguments);
        command.arg("--state-dir").arg(self.folder.join("workers"));
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
        let flags = &plan.flags;
        let submitted = self.operator(&format!("submit {flags} --min-workers {workers} --json"));
        assert_eq!(submitted.code, Some(0), "{submitted:?}");
        let summary: JobSummary = serde_json::from_str(&submitted.out).unwrap();
        summary.job
    }

    /// Watches a job to its end.
    pub fn watch(&self, job: JobId) -> Process {
        let url = self.url();
        let arguments = format!("watch {job} --json --patience 60 --coordinator {url}");
        let mut command = binary(env!("CARGO_BIN_EXE_fedavg"), &arguments);
        let mut watch = Process::start_logged(&mut command, &self.logs(), &format!("watch-{job}"));
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

fn start_coordinator(folder: &Path, address: &str, expiry: u64, starts: &mut usize) -> Process {
    let arguments = format!(
        "--bind {address} --heartbeat 0.2 --worker-expiry {expiry} --log fedavg=info,fedavg::coordinator=debug"
    );
    let mut command = binary(env!("CARGO_BIN_EXE_fedavg-coordinator"), &arguments);
    command.arg("--state-dir").arg(folder.join("coordinator"));
    *starts += 1;
    let log = format!("{:04}-coordinator", *starts);
    Process::start_logged(&mut command, &folder.join("logs"), &log)
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
