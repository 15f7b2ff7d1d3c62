//! What state of the model's size costs a strategy: 8 reports of a 100 MB model, in files, folded by FedAvg, by FedAdam,
//! whose two moments belong to the model's version, and by SCAFFOLD, whose control variate does, and whose reports are twice as long. Each in a coordinator of its own process, in turns. Three figures each:
//!
//! - `aggregate`: the strategy's call, in milliseconds: it reads eight reports and the model, and writes the next one, by block;
//!   FedAdam reads and writes two moments beside it;
//! - `publish`: until the next version is on disk, in milliseconds. FedAdam's has three times the bytes;
//! - `peak`: the most memory that the coordinator ever had resident, in MB, the submission of the initial model included.
//!
//! `cargo bench --bench state [-- BYTES [CLIENTS] [PRESET...]]`: reducers, for example, are presets, too. FEDAVG_BENCH_DIR is the folder for the files; `target`, unless it is set.

// Its coordinator and its references are other benches'.
#[allow(dead_code)]
mod support;

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use fedavg::{
    Caller, Coordinator, FederatedStrategy, JobId, JobSpec, ModelVersion, Operator, Settings,
    StrategySpec,
    coordinator::CoordinatorConfig,
    job::EvaluationMode,
    parameters::{BlockError, BlockWriter},
    store::{
        DataFolder, FileModels, FileSpool, FileSpoolConfig, ModelForm, ModelStore, ModelWriter,
        StoreError, StoredModel,
    },
    strategy::{
        AggregateContext, Aggregation, Catalogue, NextVersion, RoundContext, RoundPlan, StateSpec,
        StrategyError,
    },
    transport::http::{
        ClientConfig, OperatorClient, RouterConfig, ServerConfig, listen, router, serve,
    },
    worker::NoopTrainers,
};
use tokio::runtime::Runtime;

const CLIENTS: &str = "8";
const ROUNDS: u32 = 5;
const TURNS: usize = 3;
const BYTES: &str = "100000000";
const PRESETS: [&str; 3] = ["fedavg", "fedadam", "scaffold"];

type Failure = Box<dyn std::error::Error>;

/// A strategy that says how long it aggregates.
struct Timed<S>(S);

impl<S: FederatedStrategy> FederatedStrategy for Timed<S> {
    fn state(&self) -> StateSpec {
        self.0.state()
    }

    fn plan(&self, round: &RoundContext<'_>) -> Result<RoundPlan, StrategyError> {
        self.0.plan(round)
    }

    fn aggregate(
        &self,
        round: &AggregateContext<'_>,
        next: &mut NextVersion<'_>,
    ) -> Result<Aggregation, StrategyError> {
        let start = Instant::now();
        let aggregated = self.0.aggregate(round, next);
        println!("aggregate {}", start.elapsed().as_micros());
        aggregated
    }
}

/// A store that says how long it publishes.
struct TimedModels(FileModels);

struct TimedWriter(Box<dyn ModelWriter>);

impl ModelStore for TimedModels {
    fn begin(
        &self,
        job: JobId,
        version: ModelVersion,
        form: &ModelForm,
    ) -> Result<Box<dyn ModelWriter>, StoreError> {
        Ok(Box::new(TimedWriter(self.0.begin(job, version, form)?)))
    }

    fn remove(&self, job: JobId, version: Option<ModelVersion>) {
        self.0.remove(job, version);
    }
}

impl BlockWriter for TimedWriter {
    fn write(&mut self, offset: usize, values: &[f32]) -> Result<(), BlockError> {
        self.0.write(offset, values)
    }
}

impl ModelWriter for TimedWriter {
    fn write_state(
        &mut self,
        state: usize,
        offset: usize,
        values: &[f32],
    ) -> Result<(), BlockError> {
        self.0.write_state(state, offset, values)
    }

    fn publish(
        self: Box<Self>,
        numbers: &BTreeMap<String, f64>,
    ) -> Result<Arc<dyn StoredModel>, StoreError> {
        let start = Instant::now();
        let published = self.0.publish(numbers);
        println!("publish {}", start.elapsed().as_micros());
        published
    }
}

/// The child: says on standard output where it listens and what it measures, and serves until standard input ends.
fn coordinate(bytes: &str, folder: &str) -> Result<(), Failure> {
    let trainers = Arc::new(NoopTrainers::with_layout(support::layout(bytes), 100));
    let folder = DataFolder::open(folder)?;
    Runtime::new()?.block_on(async {
        let spool = FileSpool::new(folder.clone(), FileSpoolConfig::default());
        let coordinator = Coordinator::builder(trainers)
            .config(CoordinatorConfig::open())
            .spool(Arc::new(spool))
            .models(Arc::new(TimedModels(FileModels::new(folder))))
            .strategy("timed", |_, settings: &Settings| {
                let preset = settings["preset"].as_str().unwrap_or_default();
                let made = Catalogue::default().make(preset, &Settings::new());
                made.map(Timed)
                    .map_err(|error| StrategyError::Settings(error.to_string()))
            })
            .start();
        let listener = listen(([127, 0, 0, 1], 0).into(), true).await?;
        println!("http://{}", listener.local_addr()?);
        let parent_is_gone = tokio::task::spawn_blocking(|| io::stdin().read(&mut [0]));
        let router = router(Arc::new(coordinator), RouterConfig::default());
        serve(listener, router, ServerConfig::default(), async {
            let _ = parent_is_gone.await;
        })
        .await;
        Ok(())
    })
}

/// What a coordinator measured in one job: the medians of its rounds.
#[derive(Debug, Clone, Copy)]
struct Measured {
    aggregate: Duration,
    publish: Duration,
    peak: u64,
}

fn measure(
    strategy: &str,
    bytes: &str,
    clients: usize,
    folder: &Path,
) -> Result<Measured, Failure> {
    let mut child = Command::new(env::current_exe()?)
        .args(["coordinate", bytes])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no pipe")?).lines();
    let url = lines.next().ok_or("no address")??;
    let trainers = Arc::new(NoopTrainers::with_layout(support::layout(bytes), 100));
    Runtime::new()?.block_on(async {
        for index in 0..clients {
            let name = format!("worker-{index}");
            let worker = support::generate_reports(url.clone(), trainers.clone(), name);
            tokio::spawn(worker);
        }
        let mut job: JobSpec = trainers.job();
        job.clients = Some(clients as u32);
        job.rounds = ROUNDS;
        job.evaluation = EvaluationMode::Never;
        job.limits.min_workers = clients as u32;
        job.strategy = StrategySpec::custom("timed", Settings::new()).with("preset", strategy);
        let client = OperatorClient::new(&url, None, ClientConfig::default())?;
        let here = Caller::in_process();
        let job = client.submit(&here, job, None).await?.job;
        let ended = client.wait(&here, job).await?;
        assert_eq!(ended.version.0, u64::from(ROUNDS), "{}", ended.detail);
        Ok::<(), Failure>(())
    })?;
    let peak = peak(&child)?;
    drop(child.stdin.take());
    let (mut aggregates, mut publications) = (Vec::new(), Vec::new());
    for line in lines {
        let line = line?;
        let (what, micros) = line.split_once(' ').ok_or("not a measurement")?;
        let time = Duration::from_micros(micros.parse()?);
        match what {
            "aggregate" => aggregates.push(time),
            _ => publications.push(time),
        }
    }
    child.wait()?;
    // The first publication is the initial model's.
    publications.remove(0);
    Ok(Measured {
        aggregate: median(aggregates),
        publish: median(publications),
        peak,
    })
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// The largest resident size so far, in bytes.
fn peak(child: &Child) -> Result<u64, Failure> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id()))?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    Ok(kib.ok_or("no VmHWM")? << 10)
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    if let [what, bytes, folder] = arguments.as_slice()
        && what == "coordinate"
    {
        return coordinate(bytes, folder);
    }
    let (mut numbers, mut presets) = (Vec::new(), Vec::new());
    for argument in arguments
        .iter()
        .filter(|argument| !argument.starts_with('-'))
    {
        if argument.parse::<u64>().is_ok() {
            numbers.push(argument.as_str());
        } else {
            presets.push(argument.as_str());
        }
    }
    if presets.is_empty() {
        presets = PRESETS.to_vec();
    }
    let bytes = numbers.first().copied().unwrap_or(BYTES);
    let clients = numbers.get(1).copied().unwrap_or(CLIENTS).parse()?;
    let parent = env::var("FEDAVG_BENCH_DIR").unwrap_or_else(|_| "target".to_string());
    let mut measured: BTreeMap<&str, Vec<Measured>> = BTreeMap::new();
    for _ in 0..TURNS {
        for strategy in &presets {
            let folder = tempfile::tempdir_in(&parent)?;
            let found = measure(strategy, bytes, clients, &folder.path().join("data"))?;
            measured.entry(strategy).or_default().push(found);
        }
    }
    println!("{clients} x {bytes} bytes in files");
    for (strategy, turns) in &measured {
        let aggregate = median(turns.iter().map(|turn| turn.aggregate).collect());
        let publish = median(turns.iter().map(|turn| turn.publish).collect());
        let peak = turns.iter().map(|turn| turn.peak).max().unwrap_or(0);
        println!(
            "{strategy:17} aggregate {:7.1} ms  publish {:7.1} ms  peak {:5} MB",
            aggregate.as_secs_f64() * 1e3,
            publish.as_secs_f64() * 1e3,
            peak / 1_000_000
        );
    }
    Ok(())
}
