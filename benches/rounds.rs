//! What a round costs when training costs nothing, over HTTP on loopback, with the coordinator in a process of its own.
//!
//! A round is: tasks go out, each worker downloads the global model, adds a constant, uploads its delta, and the reports
//! are folded and published. Beside it, in the same run and for the same bytes:
//!
//! - `loopback`: each worker's model down and report up, through one plain TCP connection;
//! - `disk`: what the coordinator writes and syncs (`write_round` names each sync, and why), by one thread that does nothing else.
//!
//! The rows of TLS put what it adds to a round beside what it adds to the same bytes over as many connections by rustls
//! alone, in the same run (`support/bare.rs`): `ratio` is the one by the other. `ahead` is rustls alone with reads of 64
//! KiB, which the coordinator and its clients have, too.
//!
//! Figures are medians of several jobs, of each the mean from its first commit to its last. The coordinator is the program
//! as it is shipped; memory is its peak (VmHWM), the job's first version, which was uploaded, included. `cargo bench --bench rounds -- quick | tls | memory | large` runs a part: `large` is a model
//! of 3.4 GB and needs 40 GB of disk, and runs only when asked for. `FEDAVG_BENCH_DIR` says where files go.

mod support;

use std::{
    env,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use fedavg::{
    job::{EvaluationMode, JobSpec},
    transport::http::HttpTransport,
    worker::{NoopTrainers, Worker, WorkerConfig},
};
use support::{Loopback, Process, Spool, bare, generate_reports, write_round};
use tokio::runtime::Runtime;

/// The workers' allocator, as in `fedavg-worker`; the coordinator is a program of its own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// (workers, bytes of the model, rounds of a job, jobs).
const TABLE: [(usize, usize, u32, usize); 3] = [
    (2, 1_000_000, 20, 5),
    (8, 25_000_000, 6, 3),
    (8, 100_000_000, 4, 3),
];

fn main() {
    let parts: Vec<String> = env::args()
        .skip(1)
        .filter(|part| !part.starts_with('-'))
        .collect();
    let wants = |part: &str| match part {
        "large" => parts.iter().any(|asked| asked == part),
        _ => parts.is_empty() || parts.iter().any(|asked| asked == part),
    };
    let runtime = Runtime::new().expect("a runtime");
    if wants("quick") {
        println!("size         spool   round ms  loopback ms  disk ms  ratio");
        for (workers, bytes, rounds, jobs) in TABLE {
            for spool in [Spool::Memory, Spool::File] {
                time_rounds(&runtime, workers, bytes, rounds, jobs, spool);
            }
        }
    }
    if wants("tls") {
        println!(
            "\nsize         spool   plain ms    TLS ms  bare plain ms  bare TLS ms  ratio  ahead ms  ratio"
        );
        for spool in [Spool::Memory, Spool::File] {
            time_tls(&runtime, 8, 100_000_000, spool);
        }
    }
    if wants("memory") {
        println!("\nsize         spool   peak MB  beyond the model");
        for workers in [2, 8, 32] {
            let megabytes = 100;
            let (_, peak) = generated(&runtime, &(megabytes * 1_000_000).to_string(), workers, 3);
            let peak = peak as f64 / 1e6;
            println!(
                "{workers}x{megabytes}MB{:6} file  {peak:8.0}  {:.2} x",
                "",
                peak / megabytes as f64
            );
        }
    }
    if wants("large") {
        let (took, peak) = generated(&runtime, "gpt2_large", 6, 1);
        let model = support::layout("gpt2_large").bytes() as f64;
        println!(
            "\n6x{:.2}GB file: one round in {:.1} s, peak {:.2} GB, {:.2} x the model",
            model / 1e9,
            took.as_secs_f64(),
            peak as f64 / 1e9,
            peak as f64 / model
        );
    }
}

fn folder() -> tempfile::TempDir {
    let parent =
        env::var_os("FEDAVG_BENCH_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    tempfile::tempdir_in(parent).expect("a folder")
}

fn job(trainers: &NoopTrainers, workers: usize, rounds: u32) -> JobSpec {
    let mut spec = trainers.job();
    spec.rounds = rounds;
    spec.clients = Some(workers as u32);
    spec.evaluation = EvaluationMode::Never;
    spec.limits.min_workers = workers as u32;
    spec
}

fn time_rounds(
    runtime: &Runtime,
    workers: usize,
    bytes: usize,
    rounds: u32,
    jobs: usize,
    spool: Spool,
) {
    let folder = folder();
    let files = (spool == Spool::File).then(|| folder.path().join("data"));
    let process = started(runtime, workers, bytes, files.as_deref(), false);
    let spec = job(&process.trainers, workers, rounds);
    let mut loopback = Loopback::start();
    let moved = (2 * workers * bytes) as u64;
    let (mut times, mut wires, mut disks) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..jobs {
        times.push(runtime.block_on(process.run(&spec)));
        wires.push(loopback.move_bytes(moved));
        if spool == Spool::File {
            disks.push(write_round(folder.path(), workers, bytes));
        }
    }
    let (round, wire) = (median(&mut times), median(&mut wires));
    let disk = match spool {
        Spool::File => median(&mut disks),
        Spool::Memory => Duration::ZERO,
    };
    let size = format!("{workers}x{}MB", bytes / 1_000_000);
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "{size:12} {:7} {:8.1}  {:11.1}  {:7.1}  {:.2}",
        format!("{spool:?}").to_lowercase(),
        ms(round),
        ms(wire),
        ms(disk),
        ms(round) / (ms(wire) + ms(disk))
    );
}

/// A coordinator with its workers.
fn started(
    runtime: &Runtime,
    workers: usize,
    bytes: usize,
    files: Option<&Path>,
    is_tls: bool,
) -> Process {
    let process = Process::start(&bytes.to_string(), files, is_tls);
    for index in 0..workers {
        let transport = HttpTransport::new(&process.url, process.client()).expect("an address");
        let config = WorkerConfig::new(format!("worker-{index}"));
        let worker = Worker::new(transport, process.trainers.clone(), config);
        runtime.spawn(worker.run(std::future::pending()));
    }
    process
}

/// Rounds with TLS and without, in turn, so that what else the machine does is in both.
fn time_tls(runtime: &Runtime, workers: usize, bytes: usize, spool: Spool) {
    let folder = folder();
    let files = |name: &str| (spool == Spool::File).then(|| folder.path().join(name));
    let tls = bare::Tls::new();
    let plain = started(runtime, workers, bytes, files("plain").as_deref(), false);
    let secure = started(runtime, workers, bytes, files("tls").as_deref(), true);
    let spec = job(&plain.trainers, workers, 4);
    let ahead = tls.reading_ahead();
    let mut times = [const { Vec::new() }; 5];
    for _ in 0..5 {
        times[0].push(runtime.block_on(plain.run(&spec)));
        times[1].push(runtime.block_on(secure.run(&spec)));
        times[2].push(bare::both_ways(workers, bytes, None));
        times[3].push(bare::both_ways(workers, bytes, Some(&tls)));
        times[4].push(bare::both_ways(workers, bytes, Some(&ahead)));
    }
    let [plain, secure, bare, bare_tls, ahead] =
        times.map(|mut times| median(&mut times).as_secs_f64() * 1e3);
    println!(
        "{:12} {:7} {plain:8.1}  {secure:8.1}  {bare:13.1}  {bare_tls:11.1}  {:5.2}  {ahead:8.1}  {:5.2}",
        format!("{workers}x{}MB", bytes / 1_000_000),
        format!("{spool:?}").to_lowercase(),
        (secure - plain) / (bare_tls - bare),
        (secure - plain) / (ahead - bare)
    );
}

/// Rounds of workers that generate their reports: how long all of them took, and the coordinator's peak memory.
fn generated(runtime: &Runtime, model: &str, workers: usize, rounds: u32) -> (Duration, u64) {
    let folder = folder();
    let process = Process::start(model, Some(&folder.path().join("data")), false);
    let trainers = process.trainers.clone();
    for index in 0..workers {
        let name = format!("worker-{index}");
        runtime.spawn(generate_reports(
            process.url.clone(),
            Arc::clone(&trainers),
            name,
        ));
    }
    let took = runtime.block_on(process.run(&job(&trainers, workers, rounds)));
    (took, process.peak_memory())
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
