//! `fedavg workers` and `fedavg health`.

use clap::{Args, Subcommand};

use super::ConnectArgs;
use crate::{
    cli::{
        Align, Failure, Screen, Table, block_on,
        values::{now, time},
    },
    ids::{JobId, Timestamp, WorkerId},
    protocol::{Admission, Gpu, Hardware, Health, WorkerSummary},
    round::WorkerState,
    text::printable,
    transport::Operator,
    words::plural,
};

/// List the workers; let them in or put them out.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct WorkersArgs {
    #[command(subcommand)]
    command: Option<WorkerCommand>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The coordinator.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

impl WorkersArgs {
    /// Prints a line per worker, and below it what it runs on.
    ///
    /// # Errors
    ///
    /// No coordinator.
    pub fn run(&self, screen: &Screen) -> Result<(), Failure> {
        if let Some(command) = &self.command {
            return command.run(screen);
        }
        let client = self.connect.client()?;
        let workers = block_on(async {
            let workers = client.operator.workers(&client.caller).await;
            workers.map_err(|error| client.failure(error))
        })?;
        if self.json {
            screen.print_json(&workers)
        } else {
            screen.print(&listing(&workers, now()))
        }
    }
}

/// What to do with one worker; each needs the scope admin.
#[derive(Debug, Clone, Subcommand)]
enum WorkerCommand {
    /// Let a worker in that waits for it (fedavg-coordinator --approve)
    Approve(OneWorkerArgs),
    /// End the quarantine of a worker
    Release(OneWorkerArgs),
    /// Revoke a worker's token: its clients go to others, and its name is free. It can register again as long as its join token
    /// counts
    Revoke(OneWorkerArgs),
}

#[derive(Debug, Clone, Args)]
struct OneWorkerArgs {
    /// The worker's number
    #[arg(value_name = "WORKER")]
    worker: WorkerId,
    /// The coordinator.
    #[command(flatten)]
    connect: ConnectArgs,
}

impl WorkerCommand {
    fn run(&self, screen: &Screen) -> Result<(), Failure> {
        let (arguments, done) = match self {
            Self::Approve(arguments) => (arguments, "gets tasks"),
            Self::Release(arguments) => (arguments, "gets tasks again"),
            Self::Revoke(arguments) => (arguments, "is out"),
        };
        let client = arguments.connect.client()?;
        let worker = block_on(async {
            let asked = match self {
                Self::Revoke(_) => client
                    .operator
                    .revoke_worker(&client.caller, arguments.worker),
                _ => client
                    .operator
                    .approve_worker(&client.caller, arguments.worker),
            };
            asked.await.map_err(|error| client.failure(error))
        })?;
        let name = printable(&worker.registration.name, LONGEST_REASON);
        screen.print(&format!("worker {} ({name}) {done}", worker.worker))?;
        if matches!(self, Self::Revoke(_)) {
            let joined_by = printable(&worker.joined_by, LONGEST_REASON);
            screen.note(&format!(
                "it joined with {joined_by:?}, and can come back as long as that counts: fedavg token revoke"
            ));
        }
        Ok(())
    }
}

/// Ask the coordinator whether it is well; needs no token. If it runs and is not well, the exit code is 1.
#[derive(Debug, Clone, Args)]
pub struct HealthArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The coordinator.
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
        let stalled = health.journal.as_ref().map(|stall| {
            let seconds = now().since(stall.since).as_secs();
            let reason = printable(&stall.reason, LONGEST_REASON);
            format!("its journal can't be written, for {seconds} s by now: {reason}")
        });
        if self.json {
            screen.print_json(&health)?;
        } else {
            let state = if stalled.is_some() {
                "not well"
            } else {
                "well"
            };
            screen.print(&format!("{state}: {}", described(&health)))?;
        }
        match stalled {
            Some(reason) => Err(Failure::because("the coordinator is not well", reason)),
            None => Ok(()),
        }
    }
}

/// The most characters of a reason.
const LONGEST_REASON: usize = 500;

/// A coordinator in one line.
fn described(health: &Health) -> String {
    let running = match &health.running[..] {
        [] => "no job runs".to_string(),
        [job] => format!("job {job} runs"),
        jobs => {
            let jobs: Vec<_> = jobs.iter().map(JobId::to_string).collect();
            format!("jobs {} run", jobs.join(", "))
        }
    };
    format!(
        "version {}, protocol {}, {}, {running}, {} waiting",
        health.version,
        health.protocol,
        plural(health.workers, "worker"),
        plural(health.queued, "job")
    )
}

/// The table, with a second line for each worker that says what it runs on.
fn listing(workers: &[WorkerSummary], now: Timestamp) -> String {
    let table = table(workers, now).to_string();
    let mut lines = table.lines();
    let mut text = String::new();
    text.extend(lines.next());
    // Each worker has one line: no cell has a line break, whatever a worker calls itself.
    for (line, worker) in lines.zip(workers) {
        let hardware = describe(&worker.registration.hardware);
        text.push_str(&format!("\n{line}"));
        if !hardware.is_empty() {
            text.push_str(&format!("\n{INDENT}{hardware}"));
        }
        if let Some(held) = &worker.held {
            let held = printable(held, LONGEST_REASON);
            let until = worker
                .held_until
                .map_or(String::new(), |until| format!(" until {}", time(until)));
            text.push_str(&format!("\n{INDENT}{}{until}: {held}", worker.admission));
        }
        if worker.refused_reports > 0 {
            let refused = plural(worker.refused_reports, "report");
            text.push_str(&format!("\n{INDENT}{refused} refused"));
        }
    }
    text
}

/// As wide as the first column.
const INDENT: &str = "        ";

/// Hardware in one line; empty if the worker said nothing of it.
fn describe(hardware: &Hardware) -> String {
    let mut parts = Vec::new();
    parts.extend(hardware.cpu.clone());
    parts.extend(match (hardware.physical_cores, hardware.logical_cores) {
        (_, 0) => None,
        (Some(cores), threads) if cores != threads => Some(format!(
            "{}, {}",
            plural(cores, "core"),
            plural(threads, "thread")
        )),
        (_, cores) => Some(plural(cores, "core")),
    });
    if hardware.memory_bytes > 0 {
        parts.push(gibibytes(hardware.memory_bytes));
    }
    // Only neighbours in NVML's order are counted together: the place in the list is a GPU's index.
    for equal in hardware.gpus.chunk_by(|a, b| a == b) {
        let count = match equal.len() {
            1 => String::new(),
            count => format!("{count} x "),
        };
        parts.extend(
            equal
                .first()
                .map(|gpu| format!("{count}{}", describe_gpu(gpu))),
        );
    }
    parts.extend(
        hardware
            .libtorch
            .as_ref()
            .map(|build| format!("LibTorch {build}")),
    );
    parts.join(" | ")
}

fn describe_gpu(gpu: &Gpu) -> String {
    let details = [
        gpu.memory_bytes.map(gibibytes),
        gpu.compute_capability
            .as_ref()
            .map(|version| format!("compute {version}")),
        gpu.driver
            .as_ref()
            .map(|version| format!("driver {version}")),
    ];
    let details: Vec<_> = details.into_iter().flatten().collect();
    if details.is_empty() {
        gpu.name.clone()
    } else {
        format!("{} ({})", gpu.name, details.join(", "))
    }
}

fn gibibytes(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

fn table(workers: &[WorkerSummary], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        ("worker", Align::Right),
        ("name", Align::Left),
        ("state", Align::Left),
        ("seen", Align::Right),
        ("clients", Align::Right),
        ("slots", Align::Right),
        ("examples/s", Align::Right),
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
            state_of(worker),
            // By two clocks. If the coordinator's is ahead, `since` gives 0.
            format!("{} s ago", now.since(worker.last_seen).as_secs()),
            worker.clients.to_string(),
            registration.slots.to_string(),
            worker
                .examples_per_second
                .map_or("-".to_string(), |speed| format!("{speed:.1}")),
            registration.device.clone(),
            format!("{}{own}", datasets.join(", ")),
        ]);
    }
    table
}

fn state_of(worker: &WorkerSummary) -> String {
    let state = match worker.state {
        WorkerState::Live => "live",
        WorkerState::Lost => "lost",
        WorkerState::Left => "left",
    };
    match worker.admission {
        Admission::Admitted => state.to_string(),
        admission => format!("{state}, {admission}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::WorkerId;

    fn worker(number: u64, hardware: &str, examples_per_second: Option<f64>) -> WorkerSummary {
        let registration = format!(
            r#"{{"protocol":1,"name":"lab-{number}","slots":2,"device":"flex","hardware":{hardware}}}"#
        );
        WorkerSummary {
            worker: WorkerId(number),
            registration: serde_json::from_str(&registration).unwrap(),
            state: WorkerState::Live,
            registered: Timestamp(0),
            last_seen: Timestamp(1000),
            clients: 4,
            examples_per_second,
            admission: Admission::Admitted,
            held: None,
            held_until: None,
            joined_by: String::new(),
            refused_reports: 0,
        }
    }

    const UNKNOWN: &str = r#"{"os":"","arch":"","logical_cores":0,"memory_bytes":0}"#;
    const LAPTOP: &str = r#"{"os":"linux","arch":"x86_64","cpu":"Ryzen 7","physical_cores":8,"logical_cores":8,
        "memory_bytes":16642998272}"#;
    const LAB: &str = r#"{"os":"linux","arch":"x86_64","cpu":"Xeon W-2123","physical_cores":4,"logical_cores":8,
        "memory_bytes":68719476736,"libtorch":"2.9.0 (CUDA 12.6)","gpus":[
        {"name":"GeForce GTX 1080","memory_bytes":8589934592,"compute_capability":"6.1","driver":"580.1"},
        {"name":"GeForce GTX 1080","memory_bytes":8589934592,"compute_capability":"6.1","driver":"580.1"},
        {"name":"T4","memory_bytes":null,"compute_capability":null,"driver":null}]}"#;

    #[test]
    fn a_worker_has_a_line_and_its_hardware_another() {
        let workers = [
            worker(9, LAPTOP, Some(812.34)),
            worker(10, UNKNOWN, None),
            worker(11, LAB, Some(20_000.0)),
        ];
        let expected = [
            "worker  name    state     seen  clients  slots  examples/s  device  datasets",
            "     9  lab-9   live   2 s ago        4      2       812.3  flex",
            "        Ryzen 7 | 8 cores | 15.5 GiB",
            "    10  lab-10  live   2 s ago        4      2           -  flex",
            "    11  lab-11  live   2 s ago        4      2     20000.0  flex",
            "        Xeon W-2123 | 4 cores, 8 threads | 64.0 GiB | 2 x GeForce GTX 1080 (8.0 GiB, compute 6.1, driver 580.1) \
             | T4 | LibTorch 2.9.0 (CUDA 12.6)",
        ];
        let text = listing(&workers, Timestamp(3000));
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn no_worker_is_a_heading_alone() {
        assert_eq!(listing(&[], Timestamp(0)).lines().count(), 1);
    }
}
