//! How long a coordinator takes to go on with a large job, and how much memory: 10 000 rounds, 10 000 clients, cohorts of 100.
//!
//! The job is a real one that trained for some rounds and was left in the midst of one. Its log and its records are then made
//! as long as 10 000 rounds make them, by writing the last rounds' entries again under later numbers. `FEDAVG_BENCH_DIR` says where
//! files go; they are about 500 MB.

use std::{
    env,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use fedavg::{
    coordinator::Coordinator,
    ids::{JobId, RoundId},
    job::EvaluationMode,
    store::{
        DataFolder, FileModels, FileSpool, FileSpoolConfig, Journal, SqliteJournal,
        journal::{Batch, Body, Entry, Position, Stream},
    },
    transport::{Caller, InProcess, Operator},
    worker::{NoopTrainers, Worker, WorkerConfig},
};

/// The coordinator's allocator, as in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CLIENTS: u32 = 10_000;
const ROUNDS: u64 = 10_000;
const TRAINED: u64 = 20;
const JOB: Stream = Stream::Job(JobId(1));

fn main() {
    let parent =
        env::var_os("FEDAVG_BENCH_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let folder = tempfile::tempdir_in(parent).expect("a folder");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(train(folder.path()));
    drop(runtime);
    let (events, rounds) = lengthen(folder.path());
    let size = folder
        .path()
        .join("journal.db")
        .metadata()
        .expect("it is there")
        .len();
    println!(
        "{CLIENTS} clients, {rounds} records of rounds, {events} events, a journal of {} MB",
        size / 1_000_000
    );
    println!("recovery ms  peak MB");
    for _ in 0..3 {
        let (took, peak) = start(folder.path());
        println!(
            "{:11.0}  {:7.1}",
            took.as_secs_f64() * 1e3,
            peak as f64 / 1e6
        );
    }
}

/// Trains some rounds, and stops in the midst of the next.
async fn train(folder: &Path) {
    let folder = DataFolder::open(folder).expect("a folder");
    let journal = SqliteJournal::open(folder.clone()).expect("a journal");
    let trainers = Arc::new(NoopTrainers::new(1000, 1_000_000).expect("a model"));
    let coordinator = Coordinator::builder(trainers.clone())
        .spool(Arc::new(FileSpool::new(
            folder.clone(),
            FileSpoolConfig::default(),
        )))
        .models(Arc::new(FileModels::new(folder)))
        .recover(Arc::new(journal))
        .expect("a new one");
    for index in 0..4 {
        let config = WorkerConfig::new(format!("worker-{index}"));
        let transport = InProcess::new(Arc::new(coordinator.clone()));
        let worker = Worker::new(transport, trainers.clone(), config);
        tokio::spawn(worker.run(std::future::pending()));
    }
    let here = Caller::in_process();
    let fraction = r#"{"kind": "fedavg", "fraction": 0.01}"#;
    let mut spec = trainers.job();
    spec.rounds = 20_000;
    spec.clients = Some(CLIENTS);
    spec.evaluation = EvaluationMode::Never;
    spec.strategy = serde_json::from_str(fraction).expect("a strategy");
    spec.limits.min_workers = 4;
    let job = coordinator
        .submit(&here, spec, None)
        .await
        .expect("a job")
        .job;
    while coordinator.job(&here, job).await.expect("the job").round < RoundId(TRAINED) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    coordinator.stop(Duration::from_secs(5)).await;
}

/// Makes the log and the records as long as those of all rounds.
fn lengthen(folder: &Path) -> (u64, u64) {
    let journal = SqliteJournal::open(DataFolder::open(folder).expect("a folder"));
    let journal = journal.expect("a journal");
    let streams = journal.streams().expect("its streams");
    let found = streams.iter().find(|(stream, _)| *stream == JOB);
    let mut position = found.map_or(Position(0), |(_, position)| *position);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    // The leases of all clients come once, before the first round.
    for (log, once) in [("events", u64::from(CLIENTS)), ("rounds", 0)] {
        let mut last = journal.last_entry(JOB, log).expect("its number");
        let per_round = (last - once).div_ceil(TRAINED);
        let after = last - per_round;
        let model = journal
            .entries(JOB, log, after, per_round as usize)
            .expect("a round's entries");
        while last < once + per_round * ROUNDS {
            let mut batch = Batch::default();
            for (_, body) in &model {
                last += 1;
                batch.entries.push(Entry {
                    log,
                    number: last,
                    body: Body::Bytes(body.clone()),
                });
            }
            let written = journal.append(JOB, position, batch);
            position = position.next();
            if last % 1000 < per_round {
                runtime.block_on(written.wait()).expect("it is written");
            }
        }
    }
    let events = journal.last_entry(JOB, "events").expect("its number");
    let rounds = journal.last_entry(JOB, "rounds").expect("its number");
    (events, rounds)
}

/// From the start of the program to its first line, and its peak memory then.
fn start(folder: &Path) -> (Duration, u64) {
    let started = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_fedavg-coordinator"))
        .args([
            "--open",
            "--bind",
            "127.0.0.1:0",
            "--log",
            "error",
            "--state-dir",
        ])
        .arg(folder)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the coordinator");
    let mut line = String::new();
    let output = child.stdout.take().expect("a pipe");
    BufReader::new(output)
        .read_line(&mut line)
        .expect("its address");
    let took = started.elapsed();
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()));
    let status = status.unwrap_or_default();
    let peak = status.lines().find(|line| line.starts_with("VmHWM"));
    let kib = peak.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    let _ = child.kill();
    let _ = child.wait();
    (took, kib.unwrap_or(0) << 10)
}
