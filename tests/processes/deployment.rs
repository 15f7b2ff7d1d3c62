//! A coordinator, its workers and its operator.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use fedavg::{
    ids::{ClientId, JobId, WorkerId},
    protocol::{JobSummary, LoggedEvent, WorkerSummary},
    round::{JobEvent, Outcome},
};
use serde::de::DeserializeOwned;
use tempfile::TempDir;

pub use super::binaries::{binary, fedavg};
use super::{
    namespaces::Machine,
    process::{Finished, Process},
};

fn command(machine: Option<&Machine>, path: &str, arguments: &str) -> Command {
    match machine {
        Some(machine) => machine.command(path, arguments),
        None => binary(path, arguments),
    }
}

/// Has a command of the operator show the token that the coordinator in this folder made for its administrator, if it did.
fn show_token(command: &mut Command, state: &Path) {
    let file = state.join("admin.token");
    if file.exists() {
        command.env("FEDAVG_TOKEN_FILE", file);
    }
}

/// A coordinator that listens, with its address.
pub struct Deployment {
    process: Process,
    pub url: String,
    /// Where it runs, if not on this machine itself; the operator runs there, too.
    machine: Option<Machine>,
    /// Where it keeps reports and models, and its workers who they are.
    state: TempDir,
}

/// The flags of a coordinator, which is open unless they are about tokens.
fn with_access(arguments: &str) -> String {
    let is_closed = [
        "token-file",
        "--approve",
        "tailscale",
        "0.0.0.0",
        "--closed",
    ]
    .iter()
    .any(|word| arguments.contains(word));
    if is_closed {
        arguments.replace("--closed", "")
    } else {
        format!("--open {arguments}")
    }
}

impl Deployment {
    /// A coordinator on any free port that notices a lost worker soon.
    pub fn start() -> Self {
        Self::with("--bind 127.0.0.1:0 --heartbeat 0.2 --worker-expiry 2")
    }

    pub fn with(arguments: &str) -> Self {
        Self::start_at(None, arguments)
    }

    /// On another machine.
    pub fn on(machine: &Machine, arguments: &str) -> Self {
        Self::start_at(Some(machine.clone()), arguments)
    }

    fn start_at(machine: Option<Machine>, arguments: &str) -> Self {
        Self::start_in(TempDir::new().unwrap(), machine, arguments)
    }

    fn start_in(state: TempDir, machine: Option<Machine>, arguments: &str) -> Self {
        let path = env!("CARGO_BIN_EXE_fedavg-coordinator");
        let mut command = command(machine.as_ref(), path, &with_access(arguments));
        command.arg("--state-dir").arg(state.path());
        let mut process = Process::start(&mut command);
        let line = process.out.until("listening on ");
        let url = line.trim_start_matches("listening on ").to_string();
        Self {
            process,
            url,
            machine,
            state,
        }
    }

    /// Starts a worker, which is registered once this returns.
    pub fn worker(&self, name: &str) -> Process {
        let mut worker = self.start_worker(&format!("--name {name}"));
        worker.err.until("registered");
        worker
    }

    pub fn start_worker(&self, arguments: &str) -> Process {
        let arguments = if arguments.contains("--coordinator") {
            arguments.to_string()
        } else {
            format!("--coordinator {} {arguments}", self.url)
        };
        let mut command = binary(env!("CARGO_BIN_EXE_fedavg-worker"), &arguments);
        if !arguments.contains("--in-memory") && !arguments.contains("--state-dir") {
            // Workers share it: each has a folder of its own below.
            let folder = self.state.path().join("workers");
            command.arg("--state-dir").arg(folder);
        }
        Process::start(&mut command)
    }

    /// Runs a command of the operator to its end.
    pub fn operator(&self, arguments: &str) -> Finished {
        let arguments = format!("{arguments} --coordinator {}", self.url);
        let path = env!("CARGO_BIN_EXE_fedavg");
        let mut command = command(self.machine.as_ref(), path, &arguments);
        show_token(&mut command, self.state.path());
        Process::start(&mut command).finish()
    }

    /// The file of the admin token that a closed coordinator made.
    pub fn admin_token(&self) -> PathBuf {
        self.state.path().join("admin.token")
    }

    /// What a command of the operator prints as JSON.
    pub fn ask<T: DeserializeOwned>(&self, arguments: &str) -> T {
        let answer = self.operator(&format!("{arguments} --json"));
        assert_eq!(answer.code, Some(0), "{answer:?}");
        serde_json::from_str(&answer.out).unwrap()
    }

    pub fn submit(&self, flags: &str) -> JobId {
        self.ask::<JobSummary>(&format!("submit {flags}")).job
    }

    /// The number that the worker of this name has.
    pub fn worker_id(&self, name: &str) -> WorkerId {
        let workers: Vec<WorkerSummary> = self.ask("workers");
        let of_name = |worker: &&WorkerSummary| worker.registration.name == name;
        workers.iter().rfind(of_name).unwrap().worker
    }

    /// The job's events as they come.
    pub fn watch(&self, job: JobId) -> Watch {
        Watch::start(
            self.machine.as_ref(),
            &self.url,
            job,
            Some(self.state.path()),
        )
    }

    /// The coordinator's number as a process.
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// The next line that the coordinator prints.
    pub fn line(&mut self) -> Option<String> {
        self.process.out.next()
    }

    /// Ctrl-C; all that the coordinator printed.
    pub fn stop(self) -> Finished {
        self.process.interrupt();
        self.process.finish()
    }

    /// Ctrl-C, and its end; the folder stays.
    pub fn interrupt(&mut self) {
        self.process.interrupt();
        self.process.remains();
    }

    /// SIGKILL.
    pub fn kill(self) {
        self.process.kill();
    }

    /// SIGKILL; then another coordinator goes on with the same state at the same address. Between the two, somebody may look at
    /// the folder.
    pub fn restart(self, arguments: &str, meanwhile: impl FnOnce(&Path)) -> Self {
        self.process.kill();
        meanwhile(self.state.path());
        let address = self.url.trim_start_matches("http://");
        let arguments = format!("--bind {address} {arguments}");
        Self::start_in(self.state, self.machine, &arguments)
    }

    /// The coordinator's folder.
    pub fn state(&self) -> &Path {
        self.state.path()
    }
}

/// A job's events, watched by `fedavg watch`.
pub struct Watch {
    process: Process,
    pub log: Vec<LoggedEvent>,
}

impl Watch {
    /// Watches a job of the coordinator at this address, and has little patience with it.
    pub fn at(url: &str, job: JobId) -> Self {
        Self::start(None, url, job, None)
    }

    fn start(machine: Option<&Machine>, url: &str, job: JobId, state: Option<&Path>) -> Self {
        let arguments = format!("watch {job} --json --patience 2 --coordinator {url}");
        let path = env!("CARGO_BIN_EXE_fedavg");
        let mut command = command(machine, path, &arguments);
        if let Some(state) = state {
            show_token(&mut command, state);
        }
        Self {
            process: Process::start(&mut command),
            log: Vec::new(),
        }
    }

    /// The next event; `None` after the last.
    pub fn next(&mut self) -> Option<LoggedEvent> {
        let line = self.process.out.next()?;
        let event: LoggedEvent = serde_json::from_str(&line).unwrap();
        self.log.push(event.clone());
        Some(event)
    }

    /// Waits for the first event to come for which this is something.
    pub fn until<T>(&mut self, found: impl Fn(&LoggedEvent) -> Option<T>) -> T {
        while let Some(event) = self.next() {
            if let Some(found) = found(&event) {
                return found;
            }
        }
        panic!("it is not among {:#?}", self.log);
    }

    /// Waits for the job's end; the whole log, and the exit code.
    pub fn finish(mut self) -> (Vec<LoggedEvent>, Option<i32>) {
        while self.next().is_some() {}
        (self.log, self.process.finish().code)
    }
}

/// Every round of this job was committed, with this many clients, and the job completed.
pub fn nothing_was_lost(log: &[LoggedEvent], clients: u32) {
    let all: Vec<_> = (0..clients).map(ClientId).collect();
    for entry in log {
        match &entry.event {
            JobEvent::RoundCommitted { folded, .. } => assert_eq!(folded, &all),
            JobEvent::RoundAbandoned { .. } => panic!("a round was lost: {log:#?}"),
            _ => {}
        }
    }
    assert!(matches!(
        log.last().unwrap().event,
        JobEvent::Ended(Outcome::Completed)
    ));
}
