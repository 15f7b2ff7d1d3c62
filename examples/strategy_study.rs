//! One strategy on real data for many rounds, with a table of its rounds as CSV. It goes on where it was when it is killed and
//! started again with the same folder:
//!
//! `cargo run --release --example strategy_study -- --folder study/scaffold --strategy scaffold --rounds 50`
//!
//! The defaults are the recipe of NIID-Bench (Li et al. 2022, <https://arxiv.org/abs/2102.02079>) on CIFAR-10, as Flower's baseline
//! repeats it: LeNet, 10 clients that all take part, 10 local epochs, batches of 64, SGD with 0.01, momentum 0.9 and weight decay
//! 1e-5, random flips and crops after a reflected padding, no normalization by channel, a balanced Dirichlet partition of 0.5.
//! `FEDAVG_DATA` has the images.

use std::{error::Error, fmt::Write, fs, path::PathBuf, sync::Arc};

use clap::Parser;
use fedavg::{
    BurnTrainers, Caller, Coordinator, DeviceSpec, JobId, JobSpec, Operator, StrategySpec, Worker,
    WorkerConfig,
    coordinator::CoordinatorConfig,
    ids::RoundId,
    job::{Augment, Normalize},
    partition::PartitionSpec,
    store::{DataFolder, FileModels, FileSpool, FileSpoolConfig, SqliteJournal},
    transport::http::{
        ClientConfig, HttpTransport, RouterConfig, ServerConfig, listen, router, serve,
    },
};
use futures_util::StreamExt;

#[derive(Parser)]
struct Arguments {
    /// Where everything is kept, and `rounds.csv` is written
    #[arg(long)]
    folder: PathBuf,
    /// A preset; `fedavg strategies` lists them
    #[arg(long, default_value = "fedavg")]
    strategy: String,
    /// A parameter or a part of the strategy, as KEY=NUMBER or KEY=NAME
    #[arg(long)]
    set: Vec<String>,
    /// How the examples are dealt
    #[arg(long, default_value = "dirichlet:0.5:balanced")]
    partition: PartitionSpec,
    #[arg(long, default_value_t = 50)]
    rounds: u32,
    #[arg(long, default_value_t = 10.0)]
    local_epochs: f64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, default_value = "lenet")]
    model: String,
    #[arg(long, default_value = "cifar10")]
    dataset: String,
    #[arg(long, default_value_t = 10)]
    clients: u32,
    /// How many clients train at once
    #[arg(long, default_value_t = 2)]
    slots: u32,
    #[arg(long, default_value = "cpu")]
    device: DeviceSpec,
}

impl Arguments {
    fn job(&self) -> JobSpec {
        let mut job = JobSpec::new(&self.model, &self.dataset);
        job.rounds = self.rounds;
        job.seed = self.seed;
        job.clients = Some(self.clients);
        job.partition = self.partition;
        job.training.local_epochs = self.local_epochs;
        job.training.batch_size = 64;
        job.training.lr = 0.01;
        job.training.momentum = 0.9;
        job.training.weight_decay = 1e-5;
        job.training.augment = Augment::Reflect;
        job.training.normalize = Normalize::None;
        job.limits.round_timeout = 24 * 3600;
        job.limits.min_updates = self.clients;
        let mut strategy = StrategySpec::preset(&self.strategy);
        for setting in &self.set {
            let (key, value) = setting.split_once('=').unwrap_or((setting, "true"));
            strategy = match value.parse::<f64>() {
                Ok(number) => strategy.with(key, number),
                Err(_) => strategy.with(key, value),
            };
        }
        job.strategy = strategy;
        job
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let trainers = Arc::new(BurnTrainers::new(arguments.device)?);
    let folder = DataFolder::open(arguments.folder.join("coordinator"))?;
    let journal = Arc::new(SqliteJournal::open(folder.clone())?);
    let coordinator = Coordinator::builder(trainers.clone())
        .config(CoordinatorConfig::open())
        .spool(Arc::new(FileSpool::new(
            folder.clone(),
            FileSpoolConfig::default(),
        )))
        .models(Arc::new(FileModels::new(folder)))
        .recover(journal)?;
    let here = Caller::in_process();
    // The folder of one study has one job: that of an earlier process goes on.
    let job = match coordinator.jobs(&here).await?.first() {
        Some(found) => {
            println!("goes on with version {}", found.version);
            found.job
        }
        None => coordinator.submit(&here, arguments.job(), None).await?.job,
    };
    let mut config = WorkerConfig::new("study").with_state_dir(arguments.folder.join("workers"));
    config.slots = arguments.slots;
    // Over HTTP, which tells the worker whose clients' states it keeps.
    let listener = listen(([127, 0, 0, 1], 0).into(), true).await?;
    let url = format!("http://{}", listener.local_addr()?);
    let routes = router(Arc::new(coordinator.clone()), RouterConfig::default());
    let endless = std::future::pending();
    tokio::spawn(serve(listener, routes, ServerConfig::default(), endless));
    let transport = HttpTransport::new(&url, ClientConfig::default())?;
    tokio::spawn(async move {
        let worker = Worker::new(transport, trainers, config);
        if let Err(error) = worker.run(std::future::pending()).await {
            eprintln!("the worker ended: {error}");
            std::process::exit(1);
        }
    });

    let table = arguments.folder.join("rounds.csv");
    let mut events = coordinator.events(&here, job, 0).await?;
    while let Some(event) = events.next().await {
        let is_new = matches!(
            event?.event,
            fedavg::round::JobEvent::Evaluated { .. } | fedavg::round::JobEvent::Ended(_)
        );
        if is_new {
            fs::write(&table, csv(&coordinator, &here, job).await?)?;
        }
    }
    let ended = coordinator.wait(&here, job).await?;
    println!(
        "{}: {}, version {}",
        arguments.strategy, ended.phase, ended.version
    );
    print!(
        "{}",
        csv(&coordinator, &here, job)
            .await?
            .lines()
            .last()
            .unwrap_or_default()
    );
    println!();
    Ok(())
}

/// A line for each round: what it cost and what came of it.
async fn csv(
    coordinator: &Coordinator,
    here: &Caller,
    job: JobId,
) -> Result<String, Box<dyn Error>> {
    let mut text = "round,train_loss,test_loss,test_accuracy,best_accuracy,seconds\n".to_string();
    let (mut after, mut best) = (RoundId(0), 0.0f64);
    loop {
        let page = coordinator.rounds(here, job, after).await?;
        let Some(last) = page.last() else {
            return Ok(text);
        };
        after = last.round;
        for record in &page {
            best = best.max(record.test_accuracy.unwrap_or(0.0));
            writeln!(
                text,
                "{},{},{},{},{best},{}",
                record.round,
                record.train_loss.unwrap_or(f64::NAN),
                record.test_loss.unwrap_or(f64::NAN),
                record.test_accuracy.unwrap_or(f64::NAN),
                record.seconds
            )?;
        }
    }
}
