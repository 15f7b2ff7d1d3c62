//! `fedavg simulate`: a coordinator and many clients in this process.

use std::{
    fs,
    num::NonZero,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use clap::Args;

use super::{
    DeviceArgs, Failure, Interrupt, JobArgs, JobProgress, Results, RunSummary, Screen, TrainerArgs,
    block_on,
    job::read_model,
    output::{last_line, write_lines},
    rounds_table,
};
use crate::{
    backend::DeviceSpec,
    job::{JobSpec, OptimizerKind, StrategySpec},
    protocol::{LoggedEvent, RoundRecord},
    simulation::{Simulation, SimulationError, SimulationResult},
    telemetry::parse_rounds,
    worker::NOOP,
};

/// Clients of a simulation, where neither the file nor a flag says: a number of its own, so that the result doesn't
/// depend on how many train at once.
const CLIENTS: u32 = 8;
/// Settings with which a simulation of `digits` ends well within its rounds, where no file and no flag says otherwise.
const DIGITS_EPOCHS: u32 = 2;
const DIGITS_LR: f64 = 0.1;

/// Train in this process: a coordinator and many clients, without a network.
///
/// Without arguments: 8 clients train `mlp` on the embedded `digits`, with --local-epochs 2 and --lr 0.1. Those
/// three settings are this command's own, for `digits` without a job file; all others are a job's usual defaults.
#[derive(Debug, Clone, Default, Args)]
pub struct SimulateArgs {
    /// The job.
    #[command(flatten)]
    pub job: JobArgs,
    /// How many clients train at once. Changes nothing but the time [default: one per core]
    #[arg(long, value_name = "N", help_heading = "Simulation")]
    pub workers: Option<usize>,
    /// Start from this model instead of one drawn from the seed
    #[arg(long, value_name = "FILE.safetensors", help_heading = "Simulation")]
    pub initial: Option<PathBuf>,
    /// Repeat a recorded run: each round folds the clients that its line names. Without a job file, the job is that of
    /// the summary.json beside it
    #[arg(long, value_name = "ROUNDS.jsonl", help_heading = "Simulation")]
    pub replay: Option<PathBuf>,
    /// Write model.safetensors, rounds.jsonl, events.jsonl and summary.json into this folder
    #[arg(long, value_name = "FOLDER", help_heading = "Simulation")]
    pub output: Option<PathBuf>,
    /// Where to train.
    #[command(flatten, next_help_heading = "Simulation")]
    pub device: DeviceArgs,
    /// Data.
    #[command(flatten, next_help_heading = "Simulation")]
    pub trainers: TrainerArgs,
    /// Print the summary as JSON instead of a table
    #[arg(long, help_heading = "Simulation")]
    pub json: bool,
}

impl SimulateArgs {
    /// Makes the run.
    ///
    /// # Errors
    ///
    /// [`Failure`]; a job that failed or was cancelled is one of them.
    pub fn run(&self, screen: &Screen) -> Result<(), Failure> {
        let replay = self.replay.as_deref().map(read_rounds).transpose()?;
        let spec = self.spec()?;
        let devices = self.device.resolve(screen)?;
        let workers = self.workers(&spec, &devices);
        let trainers = self.trainers.trainers(&devices)?;
        screen.note(&describe(&spec, workers));

        let log = Arc::new(Mutex::new(Vec::new()));
        let mut simulation = Simulation::new(spec.clone(), trainers).workers(workers);
        if let Some(file) = &self.initial {
            simulation = simulation.initial(read_model(file)?);
        }
        if let Some(rounds) = replay {
            simulation = simulation.replay(rounds);
        }
        let mut progress = JobProgress::new(screen, spec.rounds);
        let seen = log.clone();
        let simulation = simulation.observer(move |entry: &LoggedEvent| {
            progress.show(entry);
            seen.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(entry.clone());
        });
        let result = block_on(async {
            let interrupt = Interrupt::listen()?;
            Ok(simulation.run_until(interrupt.wait()).await)
        })?;
        match result {
            Ok(result) => self.finish(screen, spec, result),
            Err(error) => {
                if let Some(folder) = &self.output {
                    let log = log.lock().unwrap_or_else(PoisonError::into_inner);
                    fs::create_dir_all(folder).map_err(|error| {
                        Failure::because(format!("can't write {}", folder.display()), error)
                    })?;
                    write_lines(&folder.join("events.jsonl"), &log)?;
                }
                Err(failure(error))
            }
        }
    }

    fn finish(
        &self,
        screen: &Screen,
        spec: JobSpec,
        result: SimulationResult,
    ) -> Result<(), Failure> {
        let mut summary = RunSummary::new(&result.job, &result.rounds);
        // What was asked for, not what the simulation made of it to run it.
        summary.spec = spec;
        let results = Results {
            summary,
            rounds: result.rounds,
            events: result.log,
            model: result.model,
        };
        if let Some(folder) = &self.output {
            results.write(folder)?;
        }
        let summary = &results.summary;
        match self.json {
            true => screen.print_json(summary)?,
            false => {
                screen.print(&rounds_table(&results.rounds).to_string())?;
                screen.print(&last_line(summary, self.output.as_deref()))?;
            }
        }
        result
            .job
            .outcome
            .as_ref()
            .map_or(Ok(()), Failure::of_outcome)
    }

    /// The job: a recorded run's where one is repeated, else the file's, else this command's defaults; then the flags.
    fn spec(&self) -> Result<JobSpec, Failure> {
        let recorded = self
            .replay
            .as_deref()
            .map(|rounds| rounds.with_file_name("summary.json"))
            .filter(|summary| self.job.file.is_none() && summary.exists());
        let mut spec = match recorded {
            Some(summary) => self.job.over(read_summary(&summary)?.spec)?,
            None => self.job.spec()?,
        };
        let rehearsed = self.trainers.rehearse.is_some();
        if rehearsed && self.job.file.is_none() {
            (spec.model, spec.dataset) = (NOOP.to_string(), NOOP.to_string());
        }
        spec.clients = spec.clients.or(Some(CLIENTS));
        if self.job.file.is_none() && self.replay.is_none() && spec.dataset == "digits" {
            let training = &mut spec.training;
            training.local_epochs = self.job.local_epochs.unwrap_or(DIGITS_EPOCHS);
            training.lr = self.job.lr.unwrap_or(DIGITS_LR);
        }
        self.job.over(spec)
    }

    fn workers(&self, spec: &JobSpec, devices: &[DeviceSpec]) -> usize {
        let at_once = || match devices.iter().all(|device| device.is_gpu()) {
            true => devices.len(),
            false => thread::available_parallelism().map_or(1, NonZero::get),
        };
        let clients = spec.clients.unwrap_or(CLIENTS) as usize;
        let workers = self.workers.unwrap_or_else(|| at_once().min(clients));
        workers.max(1)
    }
}

fn describe(spec: &JobSpec, workers: usize) -> String {
    let training = &spec.training;
    let strategy = match &spec.strategy {
        StrategySpec::FedAvg { fraction, .. } => format!("fedavg, fraction {fraction}"),
        StrategySpec::Custom { name, .. } => name.clone(),
    };
    let optimizer = match training.optimizer {
        OptimizerKind::Sgd => "sgd",
        OptimizerKind::Adam => "adam",
    };
    format!(
        "{} on {}: {} clients ({}), {} at once, {} rounds of {} local epochs, batch size {}, {optimizer} lr {} momentum \
         {} weight decay {}, {strategy}, seed {}",
        spec.model,
        spec.dataset,
        spec.clients.unwrap_or(CLIENTS),
        spec.partition,
        workers,
        spec.rounds,
        training.local_epochs,
        training.batch_size,
        training.lr,
        training.momentum,
        training.weight_decay,
        spec.seed
    )
}

fn read_rounds(file: &Path) -> Result<Vec<RoundRecord>, Failure> {
    let problem = |problem: String| Failure::Usage(format!("{}: {problem}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| problem(error.to_string()))?;
    parse_rounds(&text).map_err(|(line, error)| problem(format!("line {line}: {error}")))
}

fn read_summary(file: &Path) -> Result<RunSummary, Failure> {
    let problem = |problem: String| Failure::Usage(format!("{}: {problem}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| problem(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| problem(error.to_string()))
}

fn failure(error: SimulationError) -> Failure {
    match error {
        SimulationError::Refused(refusal) => Failure::Refused(refusal),
        SimulationError::Failed(reason) => Failure::JobFailed(reason),
        SimulationError::LocalData
        | SimulationError::NoStrategy
        | SimulationError::MeasuredPartition => Failure::Usage(error.to_string()),
        error => Failure::because("the simulation broke", error),
    }
}
