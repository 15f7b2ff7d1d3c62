//! How attacks and ways of aggregating meet on digits: every attack against every reducer, as Markdown tables and as CSV.
//!
//! `cargo run --release --example attack_grid -- --folder grid --attacks none,ipm:epsilon=0.5,backdoor --reducers fedavg,median`
//!
//! A run that the folder's `runs.csv` has is not made again, so that the grid goes on where it was when it is killed and started again
//! with the same folder. An attack or a reducer is NAME, or NAME:KEY=VALUE:KEY=VALUE with parameters.

use std::{
    collections::BTreeMap,
    error::Error,
    fmt::Write as _,
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use clap::Parser;
use fedavg::{
    BurnTrainers, DeviceSpec, JobSpec, Parameters, RoundRecord, Simulation, StrategySpec,
    attack::{Attack, AttackSpec, Attackers, AttackingClients, Attacks, poisoned, success_rate},
    data::{Dataset, digits},
    partition::PartitionSpec,
    simulation::SimulationError,
    worker::TrainerFactory,
};

const HEADER: &str =
    "partition,attack,reducer,seed,rounds,clients,attackers,accuracy,success_rate,outcome";

#[derive(Parser)]
struct Arguments {
    /// Where `runs.csv` and `tables.md` are written
    #[arg(long)]
    folder: PathBuf,
    /// The rows; none is no attack. "fedavg attacks" lists the others
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "none,sign_flip,sign_flip:scale=8,gaussian,gaussian:sigma=1,label_flip,alie:z=1.5,ipm,ipm:epsilon=8,backdoor,free_rider,lazy"
    )]
    attacks: Vec<String>,
    /// The columns: presets that "fedavg strategies" lists
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "fedavg,median,trimmed_mean,krum,multi_krum,bulyan,geometric_median,norm_clipping,centered_clipping:radius=1,zeroing"
    )]
    reducers: Vec<String>,
    /// How the examples are dealt: a table for each
    #[arg(long, value_delimiter = ',', default_value = "iid,dirichlet:0.5")]
    partitions: Vec<PartitionSpec>,
    #[arg(long, value_delimiter = ',', default_value = "1,2,3")]
    seeds: Vec<u64>,
    #[arg(long, default_value_t = 20)]
    rounds: u32,
    #[arg(long, default_value_t = 15)]
    clients: u32,
    /// How many of the clients attack
    #[arg(long, default_value_t = 3)]
    attackers: u32,
    /// How many clients train at once
    #[arg(long, default_value_t = 2)]
    workers: usize,
}

/// One run of the grid.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Cell {
    partition: String,
    attack: String,
    reducer: String,
    seed: u64,
    rounds: u32,
    clients: u32,
    attackers: u32,
}

/// What a run came to. Accuracy and success rate are from 0 to 1.
#[derive(Debug, Clone)]
struct Measured {
    accuracy: Option<f64>,
    success_rate: Option<f64>,
    outcome: String,
}

type Runs = BTreeMap<Cell, Measured>;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let cells = arguments.cells();
    for cell in &cells {
        // What is misspelt is told before hours of runs, and not after them.
        arguments.job(cell)?;
        arguments.attack(cell)?;
    }
    fs::create_dir_all(&arguments.folder)?;
    let file = arguments.folder.join("runs.csv");
    let mut runs = read_runs(&file)?;
    let honest = Arc::new(BurnTrainers::new(DeviceSpec::Cpu)?);
    for (number, cell) in cells.iter().enumerate() {
        if runs.contains_key(cell) {
            continue;
        }
        let measured = arguments.run(cell, honest.clone())?;
        let row = row(cell, &measured);
        println!("{} of {}: {row}", number + 1, cells.len());
        append(&file, &row)?;
        runs.insert(cell.clone(), measured);
    }
    let tables = arguments.tables(&runs);
    fs::write(arguments.folder.join("tables.md"), &tables)?;
    println!("\n{tables}");
    Ok(())
}

impl Arguments {
    fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for partition in &self.partitions {
            for attack in &self.attacks {
                for reducer in &self.reducers {
                    for seed in &self.seeds {
                        cells.push(self.cell(*partition, attack, reducer, *seed));
                    }
                }
            }
        }
        cells
    }

    fn cell(&self, partition: PartitionSpec, attack: &str, reducer: &str, seed: u64) -> Cell {
        Cell {
            partition: partition.to_string(),
            attack: attack.to_string(),
            reducer: reducer.to_string(),
            seed,
            rounds: self.rounds,
            clients: self.clients,
            attackers: self.attackers,
        }
    }

    fn job(&self, cell: &Cell) -> Result<JobSpec, Box<dyn Error>> {
        let mut job = JobSpec::new("mlp", "digits");
        (job.clients, job.rounds, job.seed) = (Some(self.clients), cell.rounds, cell.seed);
        job.partition = cell.partition.parse()?;
        (job.training.lr, job.training.local_epochs) = (0.1, 2.0);
        let (name, settings) = name_and_settings(&cell.reducer)?;
        job.strategy = StrategySpec::preset(name);
        for (key, value) in settings {
            job.strategy = match value.parse::<f64>() {
                Ok(number) => job.strategy.with(key, number),
                Err(_) => job.strategy.with(key, value),
            };
        }
        job.strategy.build(&Default::default())?;
        Ok(job)
    }

    fn attack(&self, cell: &Cell) -> Result<Option<Attacking>, Box<dyn Error>> {
        let (name, settings) = name_and_settings(&cell.attack)?;
        if name == "none" {
            return Ok(None);
        }
        let fraction = f64::from(self.attackers) / f64::from(self.clients);
        let mut spec = AttackSpec::new(name, AttackingClients::Fraction(fraction));
        for (key, value) in settings {
            let number = value
                .parse()
                .map_err(|_| format!("{key}={value}: not a number"))?;
            spec = spec.with(key, number);
        }
        let attack = Attacks::default().make(&spec)?;
        Ok(Some(Attacking {
            attack,
            who: spec.who,
        }))
    }

    fn run(&self, cell: &Cell, honest: Arc<BurnTrainers>) -> Result<Measured, Box<dyn Error>> {
        let job = self.job(cell)?;
        let attacking = self.attack(cell)?;
        let mut trainers: Arc<dyn TrainerFactory> = honest.clone();
        if let Some(attacking) = &attacking {
            trainers = attacking.trainers(&job, honest)?;
        }
        let ended = Simulation::new(job.clone(), trainers)
            .workers(self.workers)
            .run();
        let (result, outcome) = match ended {
            Ok(result) => (result, "completed".to_string()),
            // An attack that breaks training is a result, too.
            Err(SimulationError::Failed { result, reason }) => {
                (*result, format!("failed: {reason}"))
            }
            Err(error) => return Err(error.into()),
        };
        let mut success_rate = None;
        if let Some(attacking) = &attacking {
            success_rate = attacking.success_rate(&job, &result.model)?;
        }
        Ok(Measured {
            accuracy: last_accuracy(&result.rounds),
            success_rate,
            outcome,
        })
    }

    /// A table for each partition: the mean over all seeds of each attack and reducer.
    fn tables(&self, runs: &Runs) -> String {
        let mut text = String::new();
        for partition in &self.partitions {
            let _ = writeln!(
                text,
                "### {partition}: {} clients, {} attackers, {} rounds, {} seeds\n",
                self.clients,
                self.attackers,
                self.rounds,
                self.seeds.len()
            );
            let mut heading = "| attack |".to_string();
            for reducer in &self.reducers {
                let _ = write!(heading, " {reducer} |");
            }
            let _ = writeln!(
                text,
                "{heading}\n|---|{}",
                "---|".repeat(self.reducers.len())
            );
            for attack in &self.attacks {
                let rows = [
                    (
                        attack.clone(),
                        self.row_of(runs, partition, attack, |run| run.accuracy),
                    ),
                    (
                        format!("{attack}, success rate"),
                        self.row_of(runs, partition, attack, |run| run.success_rate),
                    ),
                ];
                for (name, cells) in rows {
                    // Few attacks have a success rate.
                    if cells.iter().any(|cell| cell != "-") {
                        let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
                    }
                }
            }
            text.push('\n');
        }
        text
    }

    fn row_of(
        &self,
        runs: &Runs,
        partition: &PartitionSpec,
        attack: &str,
        of: impl Fn(&Measured) -> Option<f64>,
    ) -> Vec<String> {
        let mut cells = Vec::new();
        for reducer in &self.reducers {
            let mut found = Vec::new();
            for seed in &self.seeds {
                let cell = self.cell(*partition, attack, reducer, *seed);
                found.extend(runs.get(&cell).and_then(&of));
            }
            cells.push(mean(&found));
        }
        cells
    }
}

/// The attack of a run.
struct Attacking {
    attack: Arc<dyn Attack>,
    who: AttackingClients,
}

impl Attacking {
    fn trainers(
        &self,
        job: &JobSpec,
        honest: Arc<BurnTrainers>,
    ) -> Result<Arc<dyn TrainerFactory>, Box<dyn Error>> {
        let attack = self.attack.clone();
        let attackers = if attack.needs().poisoned_data {
            let data = poisoned(&*attack, &digits()?, job.seed)?;
            Attackers::with_poisoned(job, attack, &self.who, honest, with_digits(data)?)?
        } else {
            Attackers::new(job, attack, &self.who, honest)?
        };
        Ok(Arc::new(attackers))
    }

    fn success_rate(
        &self,
        job: &JobSpec,
        model: &Parameters,
    ) -> Result<Option<f64>, Box<dyn Error>> {
        let Some(goal) = self.attack.goal(&digits()?)? else {
            return Ok(None);
        };
        Ok(Some(success_rate(
            &*with_digits(goal)?,
            &job.description(),
            model,
        )?))
    }
}

/// Trainers that have these images in the place of the digits.
fn with_digits(data: Dataset) -> Result<Arc<dyn TrainerFactory>, Box<dyn Error>> {
    let trainers = BurnTrainers::new(DeviceSpec::Cpu)?;
    Ok(Arc::new(trainers.with_dataset("digits", data)))
}

/// A name, and pairs of a key and a value.
type Named<'a> = (&'a str, Vec<(&'a str, &'a str)>);

/// Reads NAME:KEY=VALUE:KEY=VALUE.
fn name_and_settings(text: &str) -> Result<Named<'_>, String> {
    let mut parts = text.split(':');
    let name = parts.next().unwrap_or_default();
    let mut settings = Vec::new();
    for part in parts {
        let pair = part.split_once('=');
        settings.push(
            pair.ok_or_else(|| format!("{text}: expected KEY=VALUE after a colon, not {part:?}"))?,
        );
    }
    Ok((name, settings))
}

fn last_accuracy(rounds: &[RoundRecord]) -> Option<f64> {
    rounds.iter().rev().find_map(|round| round.test_accuracy)
}

/// The mean in percent, or a dash.
fn mean(values: &[f64]) -> String {
    if values.is_empty() {
        return "-".to_string();
    }
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    format!("{:.1}", 100.0 * mean)
}

/// A line of `runs.csv`.
fn row(cell: &Cell, measured: &Measured) -> String {
    let number = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.6}"));
    // A reason may have commas and line breaks, and is the last column.
    let outcome = measured.outcome.replace(['\n', '"'], " ");
    format!(
        "{},{},{},{},{},{},{},{},{},\"{outcome}\"",
        cell.partition,
        cell.attack,
        cell.reducer,
        cell.seed,
        cell.rounds,
        cell.clients,
        cell.attackers,
        number(measured.accuracy),
        number(measured.success_rate)
    )
}

fn append(file: &Path, row: &str) -> Result<(), Box<dyn Error>> {
    let before = if file.exists() {
        fs::read_to_string(file)?
    } else {
        String::new()
    };
    let mut file = OpenOptions::new().create(true).append(true).open(file)?;
    if before.is_empty() {
        writeln!(file, "{HEADER}")?;
    } else if !before.ends_with('\n') {
        // The program was killed in the middle of a line.
        writeln!(file)?;
    }
    writeln!(file, "{row}")?;
    Ok(())
}

/// The runs that a grid of before has made. A line that was cut off is made again.
fn read_runs(file: &Path) -> Result<Runs, Box<dyn Error>> {
    let mut runs = Runs::new();
    if !file.exists() {
        return Ok(runs);
    }
    for line in fs::read_to_string(file)?.lines().skip(1) {
        let fields: Vec<&str> = line.splitn(10, ',').collect();
        let [
            partition,
            attack,
            reducer,
            seed,
            rounds,
            clients,
            attackers,
            accuracy,
            success_rate,
            outcome,
        ] = fields[..]
        else {
            continue;
        };
        let (Ok(seed), Ok(rounds)) = (seed.parse(), rounds.parse()) else {
            continue;
        };
        let (Ok(clients), Ok(attackers)) = (clients.parse(), attackers.parse()) else {
            continue;
        };
        let cell = Cell {
            partition: partition.to_string(),
            attack: attack.to_string(),
            reducer: reducer.to_string(),
            seed,
            rounds,
            clients,
            attackers,
        };
        let measured = Measured {
            accuracy: accuracy.parse().ok(),
            success_rate: success_rate.parse().ok(),
            outcome: outcome.trim_matches('"').to_string(),
        };
        runs.insert(cell, measured);
    }
    Ok(runs)
}
