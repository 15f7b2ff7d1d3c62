//! `fedavg simulate`: a coordinator and many clients in this process.

use std::{
    num::NonZero,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use clap::Args;

use super::{
    AskedJob, AttackArgs, DeviceArgs, Failure, Interrupt, JobArgs, JobProgress, Results,
    RunSummary, Screen, TrainerArgs,
    advice::warnings,
    attack::{AttackRun, unfit},
    block_on,
    failure::in_full,
    job::read_model,
    output::{OutputArgs, OutputFolder, last_line},
    rounds_table,
    text_file::{RECORD, SMALL, read_text},
    values::{at_least_one, seconds, setting},
};
use crate::{
    attack::AttackSpec,
    backend::DeviceSpec,
    job::{Augment, InnerState, JobSpec, Normalize, OptimizerKind},
    parameters::Digest,
    plain::plain,
    protocol::{LoggedEvent, RoundRecord},
    round::JobEvent,
    simulation::{Simulation, SimulationError, SimulationResult},
    telemetry::parse_rounds,
    text::printable,
    words::plural,
    worker::NOOP,
};

/// Clients of a simulation, if neither the file nor a flag says: a number of its own, so that the result doesn't
/// depend on how many train at once.
const CLIENTS: u32 = 8;
/// Settings with which a simulation of `digits` ends well within its rounds, if no file and no flag says otherwise.
const DIGITS_EPOCHS: f64 = 2.0;
const DIGITS_LR: f64 = 0.1;

/// Train in this process: a coordinator and many clients, without a network.
///
/// Without arguments, 8 clients train `mlp` on the built-in dataset `digits`, with --local-epochs 2 and --lr 0.1.
#[derive(Debug, Clone, Args)]
pub struct SimulateArgs {
    /// The job.
    #[command(flatten)]
    pub job: JobArgs,
    /// How many clients train at the same time. The result is the same for any number [default: one per core, or per
    /// GPU of --device]
    #[arg(long, value_name = "N", help_heading = "Simulation", value_parser = at_least_one)]
    pub workers: Option<usize>,
    /// Start from this model instead of a random one
    #[arg(long, value_name = "FILE.safetensors", help_heading = "Simulation")]
    pub initial: Option<PathBuf>,
    /// Repeat a recorded run: each round takes the reports of the same clients. The job comes from summary.json in the
    /// same folder, or from a job file
    #[arg(long, value_name = "ROUNDS.jsonl", help_heading = "Simulation")]
    pub replay: Option<PathBuf>,
    /// Clients that attack.
    #[command(flatten, next_help_heading = "Simulation")]
    pub attack: AttackArgs,
    /// The files of the run.
    #[command(flatten, next_help_heading = "Simulation")]
    pub output: OutputArgs,
    /// With --output: how often to save the results so far, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds, help_heading = "Simulation")]
    pub checkpoint_every: Duration,
    /// Devices.
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
        let recorded = self.recorded(screen)?;
        let asked = self.asked(recorded.as_ref())?;
        let mut warnings = warnings(&asked, &self.job);
        let spec = asked.spec;
        if spec.continues.is_some() {
            let problem = "--continue is for the jobs of a coordinator. A simulation goes on from a model's file: --initial \
                model.safetensors, --first-round and the same --seed";
            return Err(Failure::Usage(problem.to_string()));
        }
        if let Some(recorded) = recorded
            .as_ref()
            .and_then(|recorded| recorded.spec.as_ref())
            && *recorded != spec
        {
            // With another job, the record's clients would make another model, and nothing would say so.
            return Err(Failure::Usage(
                "--replay repeats the job of the recorded run: leave out the flags and the file that make it another one"
                    .to_string(),
            ));
        }
        let attack = self.attack_of(recorded.as_ref())?;
        // Before anything that takes long: an hour of training must not end at a folder that can't be written.
        let output = self.output.prepare()?;
        let devices = self.device.resolve(screen)?;
        let workers = self.workers(&spec, &devices);
        let mut trainers = self.trainers.trainers(&devices)?;
        let attack = match attack {
            Some(asked) => {
                let run = AttackRun::prepare(asked, &spec, &devices, &self.trainers, trainers)?;
                trainers = run.trainers();
                warnings.extend(run.warning(&spec));
                Some(run)
            }
            None => None,
        };
        let mut simulation = Simulation::new(spec.clone(), trainers).workers(workers);
        if let Some(file) = &self.initial {
            simulation = simulation.initial(read_model(screen, file)?);
        }
        if let Some(recorded) = recorded {
            simulation = simulation.replay(recorded.rounds);
            if let Some(digest) = recorded.initial {
                simulation = simulation.expect_initial(digest);
            }
        }
        if let Some(folder) = output.clone() {
            let screen = screen.clone();
            let attack = attack.as_ref().map(AttackRun::summary);
            simulation = simulation.checkpoints(self.checkpoint_every, move |result| {
                let mut results = results(result);
                results.summary.attack = attack.clone();
                if let Err(failure) = results.write(&folder) {
                    screen.note(&format!("no checkpoint: {}", in_full(&failure)));
                }
            });
        }
        let mut progress = JobProgress::new(screen, spec.rounds);
        let mut description = describe(&spec, workers);
        if let Some(attack) = &attack {
            description = format!("{description}\n{}", attack.summary());
        }
        let mut announcement = Some((screen.clone(), description, warnings));
        let simulation = simulation.observer(move |entry: &LoggedEvent| {
            // Not before the job's first event: a job that is refused has no run to tell of.
            if let Some((screen, description, warnings)) = announcement.take() {
                screen.note(&description);
                screen.warn(&warnings);
            }
            // The workers are this process's own, and come without fail.
            if !matches!(entry.event, JobEvent::Waiting { .. }) {
                progress.show(entry);
            }
        });
        let result = block_on(async {
            let interrupt = Interrupt::listen()?;
            Ok(simulation.run_until(interrupt.wait()).await)
        })?;
        match result {
            Ok(result) => self.finish(screen, result, attack.as_ref(), output),
            Err(SimulationError::Failed { result, .. }) => {
                self.finish(screen, *result, attack.as_ref(), output)
            }
            Err(SimulationError::Unsuited { lacks }) if attack.is_some() => {
                let kind = attack.as_ref().map_or("", AttackRun::kind);
                Err(unfit(kind, spec.strategy.name(), &lacks))
            }
            Err(error) => Err(failure(error)),
        }
    }

    /// The attack of this run: a recorded run's if one is repeated, else what the flags say.
    fn attack_of(&self, recorded: Option<&Recorded>) -> Result<Option<AttackSpec>, Failure> {
        let asked = self.attack.spec()?;
        let Some(recorded) = recorded.filter(|recorded| recorded.spec.is_some()) else {
            return Ok(asked);
        };
        if asked.is_some() && asked != recorded.attack {
            return Err(Failure::Usage(
                "--replay repeats the attack of the recorded run: leave out --attack, or give the same".to_string(),
            ));
        }
        Ok(recorded.attack.clone())
    }

    /// Writes and prints what there is of a run, however it ended.
    fn finish(
        &self,
        screen: &Screen,
        result: SimulationResult,
        attack: Option<&AttackRun>,
        output: Option<OutputFolder>,
    ) -> Result<(), Failure> {
        let mut results = results(result);
        if let Some(attack) = attack {
            results.summary.attack = Some(attack.measured(screen, &results.model));
        }
        // Before anything is printed: standard output may be closed, and the results must not be lost for that.
        let written = match &output {
            Some(folder) => results.write(folder),
            None => Ok(()),
        };
        let summary = &results.summary;
        if self.json {
            screen.print_json(summary)?;
        } else {
            screen.print(&rounds_table(&results.rounds).to_string())?;
            // If the files could not be written, the error says so instead.
            let folder = output.as_ref().filter(|_| written.is_ok());
            screen.print(&last_line(summary, folder.map(OutputFolder::path)))?;
            if let Some(attack) = &summary.attack {
                screen.print(&attack.to_string())?;
            }
        }
        written?;
        if let Some(warning) = &summary.warning {
            screen.note(&format!("warning: {warning}"));
        }
        summary.outcome.as_ref().map_or(Ok(()), Failure::of_outcome)
    }

    /// What --replay repeats.
    fn recorded(&self, screen: &Screen) -> Result<Option<Recorded>, Failure> {
        let Some(file) = &self.replay else {
            return Ok(None);
        };
        let rounds = read_rounds(file)?;
        let summary = file.with_file_name("summary.json");
        if !summary.exists() {
            if self.job.file.is_none() {
                return Err(Failure::Usage(format!(
                    "--replay {}: {} is missing, which has the run's job; give a job file instead",
                    file.display(),
                    summary.display()
                )));
            }
            screen.note(
                "warning: there is no summary.json, so that the initial model is not checked",
            );
            return Ok(Some(Recorded {
                rounds,
                spec: None,
                attack: None,
                initial: None,
            }));
        }
        let path = summary;
        let summary = read_summary(&path)?;
        let of_summary = summary.rounds_committed + summary.rounds_abandoned;
        if of_summary != rounds.len() {
            return Err(Failure::of_file(
                file,
                format!(
                    "has {}, and {} says {of_summary}: the two are not of the same run, or a part is missing",
                    plural(rounds.len(), "round"),
                    path.display()
                ),
            ));
        }
        if summary.initial_digest.is_none() {
            screen.note(
                "warning: the recorded run is of an earlier version, so that the initial model is not checked",
            );
        }
        let mut spec = summary.spec;
        // As many as there were workers, if the job did not say.
        spec.clients = spec.clients.or(summary.clients);
        Ok(Some(Recorded {
            rounds,
            spec: Some(spec),
            attack: summary.attack.map(|attack| attack.spec),
            initial: summary.initial_digest,
        }))
    }

    /// The job: a recorded run's if one is repeated, else the file's, else this command's defaults; then the flags.
    fn asked(&self, recorded: Option<&Recorded>) -> Result<AskedJob, Failure> {
        let AskedJob { mut spec, dropped } =
            match recorded.and_then(|recorded| recorded.spec.clone()) {
                // A job file wins over the record; `run` then checks that it is the same job.
                Some(spec) if self.job.file.is_none() => self.job.over(spec)?,
                // A file or a record leaves out what has the defaults of every job.
                _ if self.job.file.is_some() || self.replay.is_some() => self.job.job()?,
                _ => self.job.over(self.usual())?,
            };
        let rehearsed = self.trainers.rehearse.is_some();
        if rehearsed && self.job.file.is_none() {
            // A rehearsal has no other model and no other dataset; `mlp` on `digits` would be refused.
            (spec.model, spec.dataset) = (NOOP.to_string(), NOOP.to_string());
        }
        // Not the number of workers, which is another one on another machine.
        spec.clients = spec.clients.or(Some(CLIENTS));
        // Again, since the lines above may have changed what a flag says.
        let spec = self.job.over(spec)?.spec;
        Ok(AskedJob { spec, dropped })
    }

    /// The defaults of this command. They are there before the flags, which are checked with them: a schedule has limits that the
    /// learning rate sets.
    fn usual(&self) -> JobSpec {
        let mut spec = JobSpec::default();
        let dataset = self.job.dataset.as_ref().unwrap_or(&spec.dataset);
        if dataset == "digits" && self.trainers.rehearse.is_none() {
            spec.training.local_epochs = DIGITS_EPOCHS;
            spec.training.lr = DIGITS_LR;
        }
        spec
    }

    fn workers(&self, spec: &JobSpec, devices: &[DeviceSpec]) -> usize {
        let usual = if devices.iter().all(|device| device.is_gpu()) {
            devices.len()
        } else {
            thread::available_parallelism().map_or(1, NonZero::get)
        };
        let clients = spec.clients.unwrap_or(CLIENTS) as usize;
        // More than clients would have nothing to do.
        self.workers.unwrap_or(usual).clamp(1, clients.max(1))
    }
}

/// A run that is to be repeated.
struct Recorded {
    rounds: Vec<RoundRecord>,
    spec: Option<JobSpec>,
    /// Its attack, if it had one.
    attack: Option<AttackSpec>,
    /// The digest of its initial model.
    initial: Option<Digest>,
}

/// What a run leaves behind.
fn results(result: SimulationResult) -> Results {
    Results {
        summary: RunSummary::new(&result.job, &result.rounds),
        rounds: result.rounds,
        events: result.log,
        model: result.model,
        best_model: result.best_model,
    }
}

fn describe(spec: &JobSpec, workers: usize) -> String {
    let training = &spec.training;
    let strategy = printable(&spec.strategy.to_string(), 1000).into_owned();
    let passes = match training.local_steps {
        Some(steps) => plural(steps, "local step"),
        None => plural(training.local_epochs, "local epoch"),
    };
    let optimizer = training.optimizer.name();
    let momentum = match training.optimizer {
        OptimizerKind::Sgd => format!(" momentum {}", setting(training.momentum)),
        // The others have none.
        _ => String::new(),
    };
    format!(
        "{} on {}: {} ({}), {} at once, {} of {}, batch size {}, {optimizer} lr {}{momentum} weight decay {}{}, \
         {strategy}, seed {}",
        spec.model,
        spec.dataset,
        plural(spec.clients.unwrap_or(CLIENTS), "client"),
        spec.partition,
        workers,
        plural(spec.rounds, "round"),
        passes,
        training.batch_size,
        setting(training.lr),
        setting(training.weight_decay),
        further_settings(spec),
        spec.seed
    )
}

/// The settings that are not at their defaults, each after a comma.
fn further_settings(spec: &JobSpec) -> String {
    let training = &spec.training;
    let mut words = Vec::new();
    if training.nesterov {
        words.push("nesterov".to_string());
    }
    if training.inner_state == InnerState::Keep {
        words.push("optimizer kept".to_string());
    }
    if let Some(norm) = training.clip_norm {
        words.push(format!("clip norm {}", setting(norm)));
    }
    if training.label_smoothing > 0.0 {
        words.push(format!(
            "label smoothing {}",
            setting(training.label_smoothing)
        ));
    }
    match training.augment {
        Augment::Zeros => words.push("augmented".to_string()),
        Augment::Reflect => words.push("augmented (reflect)".to_string()),
        _ => {}
    }
    if training.normalize == Normalize::None {
        words.push("not normalized".to_string());
    }
    if !spec.schedule.is_constant() {
        words.push(format!("schedule {}", spec.schedule));
    }
    if spec.schedule.warmup() > 0 {
        words.push(format!(
            "{} of warm-up",
            plural(spec.schedule.warmup(), "round")
        ));
    }
    words.iter().map(|word| format!(", {word}")).collect()
}

fn read_rounds(file: &Path) -> Result<Vec<RoundRecord>, Failure> {
    let text = read_text(file, RECORD)?;
    parse_rounds(&text).map_err(|(line, problem)| {
        let problem = format!("line {line} is no record of a round: {}", plain(&problem));
        Failure::of_file(file, problem)
    })
}

fn read_summary(file: &Path) -> Result<RunSummary, Failure> {
    let text = read_text(file, SMALL)?;
    serde_json::from_str(&text).map_err(|error| {
        let problem = format!("it is no summary of a run: {}", plain(&error.to_string()));
        Failure::of_file(file, problem)
    })
}

fn failure(error: SimulationError) -> Failure {
    match error {
        // There is no coordinator to be seen: it is the command's arguments that can't be used.
        SimulationError::Refused(refusal) => Failure::Usage(refusal.detail),
        SimulationError::Failed { reason, .. } => Failure::JobFailed(reason),
        SimulationError::LocalData
        | SimulationError::NoStrategy
        | SimulationError::Dataset(_)
        | SimulationError::Replay(_)
        | SimulationError::MeasuredPartition
        | SimulationError::MeasuredStrategy => Failure::Usage(error.to_string()),
        error => Failure::because("the simulation broke", error),
    }
}
