//! A job as arguments: a TOML file, and flags that override it.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use clap::{Args, builder::PossibleValuesParser, builder::TypedValueParser};

use super::{
    Failure, Screen,
    model_file::read_model_bytes,
    stop_flags::StopArgs,
    strategy_flags::StrategyArgs,
    text_file::{SMALL, read_text},
    values::{any_u32, any_u64, by_name},
    whole_file::WholeFile,
};
use crate::{
    job::{
        Augment, Continues, EvaluationMode, InnerState, JobSpec, Normalize, OptimizerKind,
        Schedule, Settings,
    },
    parameters::{Encoding, ModelFile, Parameters},
    partition::PartitionSpec,
    plain::plain,
    text::printable,
};

/// A job that was asked for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AskedJob {
    /// The job.
    pub spec: JobSpec,
    /// The settings of the job file's strategy that do not count, since a flag names another strategy.
    pub dropped: Settings,
}

/// What a job is to be. What neither a flag nor the file names has the default shown.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Job")]
pub struct JobArgs {
    /// A job file in TOML. A flag wins over the same setting in the file
    #[arg(value_name = "JOB.toml", help_heading = None::<&'static str>)]
    pub file: Option<PathBuf>,
    /// The model to train: mlp, lenet, cifar_cnn, tiny_cnn, or a model that your own workers know [default: mlp]
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// The dataset: digits (built in), cifar10, folder:PATH (images), or a dataset that your own workers know
    /// [default: digits]
    #[arg(long, value_name = "NAME")]
    pub dataset: Option<String>,
    /// How many clients (data holders) the data is divided among [default: the number of workers at the start; 8 in
    /// a simulation]
    #[arg(long, value_name = "N", value_parser = any_u32)]
    pub clients: Option<u32>,
    /// How the examples are divided among the clients: iid (at random, equally), dirichlet:ALPHA (uneven labels),
    /// dirichlet:ALPHA:balanced (uneven labels, similar sizes, as in NIID-Bench), shard:LABELS (this many labels each), quantity_skew:ALPHA (uneven amounts), proportional (by the workers' number of
    /// GPUs), proportional:measured (by the workers' measured speed), or local (each worker trains on its own data)
    /// [default: iid]
    #[arg(long, value_name = "KIND")]
    pub partition: Option<PartitionSpec>,
    /// How many rounds to train; a round that fails is tried again. 0 tests the initial model, and trains nothing
    /// [default: 20]
    #[arg(long, value_name = "N", value_parser = any_u32)]
    pub rounds: Option<u32>,
    /// The number of the first round. To continue another job (its model as --initial, its --seed): one more than that
    /// job's last round [default: 1]
    #[arg(long, value_name = "N", value_parser = any_u32)]
    pub first_round: Option<u32>,
    /// Go on from this job, which has ended: from its final model, with the strategy's state, the clients' states and the
    /// numbers of rounds, so that 10 rounds and 10 more are 20; or, as JOB:best, from its best model alone. Without a job
    /// file, all settings that no flag gives are that job's
    #[arg(
        long = "continue",
        value_name = "JOB[:best]",
        conflicts_with = "first_round"
    )]
    pub continues: Option<Continues>,
    /// How much the job counts beside others that run at the same time, from 1 to 100; one with twice the priority gets
    /// twice as many tasks done [default: 1]
    #[arg(long, value_name = "N", value_parser = any_u32)]
    pub priority: Option<u32>,
    /// The seed of all randomness: the same seed gives the same result [default: 1337]
    #[arg(long, value_name = "N", value_parser = any_u64)]
    pub seed: Option<u64>,
    /// How many times a client passes over its data in a round; may be a fraction, such as 0.5 [default: 1; 2 in a
    /// simulation of digits]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub local_epochs: Option<f64>,
    /// How many optimizer steps a client takes in a round, instead of --local-epochs
    #[arg(long, value_name = "N", value_parser = any_u32, conflicts_with = "local_epochs")]
    pub local_steps: Option<u32>,
    /// How many examples an optimizer step takes [default: 64]
    #[arg(long, value_name = "N", value_parser = any_u32)]
    pub batch_size: Option<u32>,
    /// The optimizer of the clients [default: sgd]
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(["sgd", "adam", "adamw"]).try_map(by_name::<OptimizerKind>))]
    pub optimizer: Option<OptimizerKind>,
    /// What becomes of the state of a client's optimizer (momentum, moments) between its rounds: new starts from zero,
    /// keep goes on [default: new]
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(["new", "keep"]).try_map(by_name::<InnerState>))]
    pub inner_state: Option<InnerState>,
    /// The learning rate of the clients [default: 0.01; 0.1 in a simulation of digits]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub lr: Option<f64>,
    /// How the learning rate changes over the rounds: constant, step:EVERY:FACTOR (multiplied by FACTOR after EVERY rounds),
    /// cosine, or cosine:MIN (down to MIN, by default 0) [default: constant]
    #[arg(long, value_name = "KIND")]
    pub schedule: Option<Schedule>,
    /// In how many rounds the learning rate rises to --lr, before --schedule begins [default: 0]
    #[arg(long, value_name = "N", value_parser = any_u32)]
    pub warmup: Option<u32>,
    /// The momentum of sgd [default: 0.9]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub momentum: Option<f64>,
    /// Use Nesterov's momentum, as in PyTorch [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub nesterov: Option<bool>,
    /// The weight decay (L2 penalty; of adamw, decoupled), as in PyTorch [default: 1e-4]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub weight_decay: Option<f64>,
    /// The largest L2 norm of a step's gradient; a longer one is scaled down to it [default: any norm]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub clip_norm: Option<f64>,
    /// The share of each target that is spread over all classes, from 0 to 1 [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub label_smoothing: Option<f64>,
    /// Flip and shift the training images at random, but not those of digits: true or false. reflect: as true, and what a
    /// shift uncovers mirrors the image and is not black [default: false]
    #[arg(long, value_name = "KIND", num_args = 0..=1, default_missing_value = "true", require_equals = true,
        value_parser = PossibleValuesParser::new(["true", "false", "reflect"]).map(|name| augment(&name)))]
    pub augment: Option<Augment>,
    /// How the pixels become the model's inputs: channels (by each channel's mean and deviation), or none (from 0 to 1)
    /// [default: channels]
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(["channels", "none"]).try_map(by_name::<Normalize>))]
    pub normalize: Option<Normalize>,
    /// The number format of what workers send: f32, f16, bf16, int8, or top_k:FRACTION (the largest values alone; what
    /// is left out is sent later) [default: f32]
    #[arg(long, value_name = "ENCODING")]
    pub encoding: Option<Encoding>,
    /// The number format of the models that workers download: f32, f16, bf16 or int8 [default: f32]
    #[arg(long, value_name = "ENCODING")]
    pub model_encoding: Option<Encoding>,
    /// A tensor that each client trains and keeps for itself, never sent and never averaged; * stands for any text:
    /// "head.*". Can be given several times
    #[arg(long, value_name = "PATTERN")]
    pub personal: Vec<String>,
    /// A tensor that nobody trains: it stays as the initial model has it; * stands for any text: "body.*". Can be given
    /// several times
    #[arg(long, value_name = "PATTERN")]
    pub frozen: Vec<String>,
    /// The strategy.
    #[command(flatten)]
    pub strategy: StrategyArgs,
    /// Who tests the model after a round. auto: the coordinator if it has the data, else the workers [default: auto]
    #[arg(long, value_name = "WHO", value_parser = PossibleValuesParser::new(["auto", "coordinator", "workers", "never"]).try_map(by_name::<EvaluationMode>))]
    pub evaluation: Option<EvaluationMode>,
    /// What is measured, and what follows from it.
    #[command(flatten)]
    pub stop: StopArgs,
    /// How long a round may take, in seconds [default: 900]
    #[arg(long, value_name = "SECONDS", value_parser = any_u64)]
    pub round_timeout: Option<u64>,
    /// The quorum: a round with fewer reports than this at its deadline fails. A reducer such as krum may need more [default: 1]
    #[arg(long, value_name = "N", value_parser = any_u32)]
    pub min_updates: Option<u32>,
    /// How many reports a round waits for, as a number instead of --fraction
    #[arg(long, value_name = "N", value_parser = any_u32)]
    pub goal: Option<u32>,
    /// How many rounds in a row may fail before the job fails [default: 3]
    #[arg(long, value_name = "N", value_parser = any_u32)]
    pub max_attempts: Option<u32>,
    /// How many workers the job waits for before it starts [default: 1]
    #[arg(long, value_name = "N", value_parser = any_u32)]
    pub min_workers: Option<u32>,
    /// How long the job waits for those workers before it fails, in seconds [default: 900]
    #[arg(long, value_name = "SECONDS", value_parser = any_u64)]
    pub start_timeout: Option<u64>,
    /// How long the workers may take to test a model, in seconds [default: 900]
    #[arg(long, value_name = "SECONDS", value_parser = any_u64)]
    pub evaluation_timeout: Option<u64>,
}

impl JobArgs {
    /// The job: the file's, else the defaults, with what the flags change.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] for a file that can't be read as a job, and for values that can't be.
    pub fn job(&self) -> Result<AskedJob, Failure> {
        let base = match &self.file {
            Some(file) => read_job(file)?,
            None => JobSpec::default(),
        };
        self.over(base)
    }

    /// A job with what the flags change.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] for values that can't be.
    pub fn over(&self, mut spec: JobSpec) -> Result<AskedJob, Failure> {
        fn set<T: Clone>(field: &mut T, flag: &Option<T>) {
            if let Some(value) = flag {
                field.clone_from(value);
            }
        }
        set(&mut spec.model, &self.model);
        set(&mut spec.dataset, &self.dataset);
        spec.clients = self.clients.or(spec.clients);
        set(&mut spec.partition, &self.partition);
        set(&mut spec.rounds, &self.rounds);
        set(&mut spec.first_round, &self.first_round);
        spec.continues = self.continues.or(spec.continues);
        set(&mut spec.priority, &self.priority);
        set(&mut spec.seed, &self.seed);
        let training = &mut spec.training;
        set(&mut training.local_epochs, &self.local_epochs);
        // A flag wins over the file: epochs would have no say beside the file's steps.
        if self.local_epochs.is_some() {
            training.local_steps = None;
        }
        training.local_steps = self.local_steps.or(training.local_steps);
        set(&mut training.batch_size, &self.batch_size);
        set(&mut training.optimizer, &self.optimizer);
        set(&mut training.inner_state, &self.inner_state);
        set(&mut training.lr, &self.lr);
        set(&mut training.momentum, &self.momentum);
        set(&mut training.nesterov, &self.nesterov);
        set(&mut training.weight_decay, &self.weight_decay);
        training.clip_norm = self.clip_norm.or(training.clip_norm);
        set(&mut training.label_smoothing, &self.label_smoothing);
        set(&mut training.augment, &self.augment);
        set(&mut training.normalize, &self.normalize);
        let of_file = spec.schedule;
        set(&mut spec.schedule, &self.schedule);
        let warmup = self.warmup.unwrap_or(of_file.warmup());
        spec.schedule = spec.schedule.with_warmup(warmup);
        // No flag says the length of a cosine: the file's stays.
        if let Schedule::Cosine {
            rounds: Some(rounds),
            ..
        } = of_file
        {
            spec.schedule = spec.schedule.made_for(rounds);
        }
        set(&mut spec.encoding.reports, &self.encoding);
        set(&mut spec.encoding.models, &self.model_encoding);
        for (field, flags) in [
            (&mut spec.personal, &self.personal),
            (&mut spec.frozen, &self.frozen),
        ] {
            if !flags.is_empty() {
                field.clone_from(flags);
            }
        }
        let dropped = self.strategy.change(&mut spec.strategy)?;
        set(&mut spec.evaluation, &self.evaluation);
        self.stop.change(&mut spec);
        let limits = &mut spec.limits;
        set(&mut limits.round_timeout, &self.round_timeout);
        set(&mut limits.min_updates, &self.min_updates);
        limits.goal = self.goal.or(limits.goal);
        set(&mut limits.max_attempts, &self.max_attempts);
        set(&mut limits.min_workers, &self.min_workers);
        set(&mut limits.start_timeout, &self.start_timeout);
        set(&mut limits.evaluation_timeout, &self.evaluation_timeout);
        // Here too, not only at the coordinator: nothing has been read or sent yet.
        spec.validate()
            .map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(AskedJob { spec, dropped })
    }
}

/// What `--augment` says; clap has checked that it is one of these.
fn augment(name: &str) -> Augment {
    match name {
        "reflect" => Augment::Reflect,
        other => Augment::from(other == "true"),
    }
}

/// Reads a job file.
///
/// # Errors
///
/// [`Failure::Usage`] with the file's name, the line and the key.
pub fn read_job(file: &Path) -> Result<JobSpec, Failure> {
    let text = read_text(file, SMALL)?;
    parse_job(file, &text)
}

/// Writes a job file.
///
/// # Errors
///
/// [`Failure::Usage`] with the file's name.
pub(super) fn write_job(file: &Path, spec: &JobSpec) -> Result<(), Failure> {
    let text = toml::to_string(spec).map_err(|error| Failure::of_file(file, error))?;
    let mut whole = WholeFile::create(file)?;
    whole
        .write_all(text.as_bytes())
        .map_err(|error| Failure::of_file(file, error))?;
    whole.put_in_place()
}

/// Reads the text of a job file.
pub(super) fn parse_job(file: &Path, text: &str) -> Result<JobSpec, Failure> {
    let parsed = toml::Deserializer::parse(text);
    let deserializer = parsed.map_err(|error| unusable_job(file, text, "", &error))?;
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let key = error.path().to_string();
        unusable_job(file, text, &key, error.inner())
    })
}

/// Says what is wrong with a job file, and at which line and key.
fn unusable_job(file: &Path, text: &str, key: &str, error: &toml::de::Error) -> Failure {
    // An error without a place is one of the file as a whole.
    let line = error
        .span()
        .map_or(1, |span| text[..span.start].matches('\n').count() + 1);
    let problem = plain(error.message());
    // `serde_path_to_error` calls the whole file `.`.
    let key = if key.is_empty() || key == "." {
        String::new()
    } else {
        format!("{key}: ")
    };
    Failure::of_file(file, format!("line {line}: {key}{problem}"))
}

/// Reads a model from a safetensors file, and tells what had to be changed for it.
///
/// # Errors
///
/// [`Failure::Usage`] with the file's name.
pub fn read_model(screen: &Screen, file: &Path) -> Result<Parameters, Failure> {
    let bytes = read_model_bytes(file).map_err(|error| Failure::of_file(file, error))?;
    let read = ModelFile::parse(&bytes).and_then(ModelFile::into_model);
    let read = read.map_err(|error| Failure::of_file(file, error))?;
    for change in read.changes {
        // The names of tensors are in it, and the file may be anybody's.
        screen.note(&printable(&format!("{}: {change}", file.display()), 1000));
    }
    Ok(read.model)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;

    use super::*;
    use crate::job::StrategySpec;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        job: JobArgs,
    }

    fn parse(arguments: &[&str]) -> JobArgs {
        Command::try_parse_from([&["test"], arguments].concat())
            .unwrap()
            .job
    }

    fn spec_of(arguments: &[&str]) -> Result<JobSpec, Failure> {
        Ok(parse(arguments).job()?.spec)
    }

    #[test]
    fn the_seeds_flags_are_the_defaults() {
        let flags = "--rounds 20 --local-epochs 1 --batch-size 64 --lr 0.01 --momentum 0.9 --weight-decay 1e-4 \
                     --round-timeout 900 --min-updates 1";
        let flags: Vec<_> = flags.split_whitespace().collect();
        assert_eq!(spec_of(&flags).unwrap(), JobSpec::default());
        assert_eq!(spec_of(&[]).unwrap(), JobSpec::default());
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("job.toml");
        let text = "model = 'lenet'\nrounds = 7\nclients = 4\n[partition]\nkind = 'shard'\nlabels_per_client = 2\n\
                    [training]\nlr = 0.5\n[strategy]\nkind = 'fedavg'\nfraction = 0.5\n";
        fs::write(&file, text).unwrap();
        let file = file.to_str().unwrap();
        let flags = [
            file,
            "--rounds=9",
            "--weighting=uniform",
            "--augment",
            "--goal=2",
        ];
        let spec = spec_of(&flags).unwrap();
        assert_eq!((spec.model.as_str(), spec.rounds), ("lenet", 9));
        assert_eq!(
            (spec.training.lr, spec.training.augment, spec.limits.goal),
            (0.5, Augment::Zeros, Some(2))
        );
        assert_eq!(
            spec.strategy,
            StrategySpec::preset("fedavg")
                .with("fraction", 0.5)
                .with("weighting", "uniform")
        );
        let spec = spec_of(&[
            file,
            "--local-steps=5",
            "--augment=reflect",
            "--schedule=cosine:0.1",
            "--warmup=2",
            "--optimizer=adamw",
            "--inner-state=keep",
            "--normalize=none",
            "--clip-norm=1",
            "--label-smoothing=0.1",
        ]);
        let spec = spec.unwrap();
        let training = &spec.training;
        assert_eq!(
            (training.local_steps, training.augment, training.optimizer),
            (Some(5), Augment::Reflect, OptimizerKind::AdamW)
        );
        assert_eq!(
            (training.inner_state, training.normalize),
            (InnerState::Keep, Normalize::None)
        );
        assert_eq!(
            (training.clip_norm, training.label_smoothing),
            (Some(1.0), 0.1)
        );
        assert_eq!(
            spec.schedule,
            Schedule::Cosine {
                min: 0.1,
                warmup: 2,
                rounds: None
            }
        );
        let partition = spec_of(&[file, "--partition=dirichlet:0.5"])
            .unwrap()
            .partition;
        assert_eq!(partition, PartitionSpec::Dirichlet { alpha: 0.5 });
    }

    #[test]
    fn a_schedule_of_a_flag_keeps_the_warm_up_and_the_length_of_the_files() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("job.toml");
        let text = "schedule = { kind = 'cosine', min = 0.001, warmup = 3, rounds = 100 }\n";
        fs::write(&file, text).unwrap();
        let file = file.to_str().unwrap();
        let spec = spec_of(&[file, "--schedule=cosine:0.002"]).unwrap();
        let expected = Schedule::Cosine {
            min: 0.002,
            warmup: 3,
            rounds: Some(100),
        };
        assert_eq!(spec.schedule, expected);
        let spec = spec_of(&[file, "--schedule=constant"]).unwrap();
        assert_eq!(spec.schedule, Schedule::Constant { warmup: 3 });
    }

    #[test]
    fn tensors_of_the_file_are_replaced_by_those_of_the_flags() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("job.toml");
        fs::write(&file, "personal = ['head.*']\nfrozen = ['body.*']\n").unwrap();
        let file = file.to_str().unwrap();
        let spec = spec_of(&[file]).unwrap();
        assert_eq!(
            (&spec.personal[..], &spec.frozen[..]),
            (&["head.*".to_string()][..], &["body.*".to_string()][..])
        );
        let spec = spec_of(&[file, "--personal=a", "--personal", "b.*"]).unwrap();
        assert_eq!(
            (spec.personal, spec.frozen),
            (
                vec!["a".to_string(), "b.*".to_string()],
                vec!["body.*".to_string()]
            )
        );
        let refused = spec_of(&["--personal=a", "--evaluation=coordinator"]);
        assert!(
            refused
                .unwrap_err()
                .to_string()
                .contains("personal tensors")
        );
    }

    #[test]
    fn settings_of_strategy_and_trainer_come_from_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("job.toml");
        let text = "strategy = { kind = 'custom', name = 'adam', settings = { betas = [0.9, 0.99] } }\n\
                    [settings]\nhidden = [64, 32]\n[settings.head]\nbias = false\n";
        fs::write(&file, text).unwrap();
        let spec = spec_of(&[file.to_str().unwrap()]).unwrap();
        assert_eq!(spec.settings["hidden"][0], 64);
        assert_eq!(spec.settings["head"]["bias"], false);
        let StrategySpec::Custom { name, settings } = &spec.strategy else {
            panic!("{spec:?}");
        };
        assert_eq!(
            (name.as_str(), &settings["betas"][1]),
            ("adam", &0.99.into())
        );
    }

    #[test]
    fn a_file_that_is_no_job_is_named_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("job.toml");
        fs::write(&file, "rounds = 3\n\n[training]\nlearning_rate = 1\n").unwrap();
        let failure = read_job(&file).unwrap_err();
        assert_eq!(failure.code(), 2);
        let text = failure.to_string();
        assert!(
            text.contains("job.toml: line 4: training.learning_rate: there is no key learning_rate; the keys here are "),
            "{text}"
        );
        assert!(!text.contains('\n'), "{text}");
        assert_eq!(read_job(&folder.path().join("none")).unwrap_err().code(), 2);
    }

    #[test]
    fn flags_that_cannot_be_are_usage_errors() {
        for flags in [
            ["--optimizer=lbfgs"],
            ["--rounds=many"],
            ["--partition=dirichlet:0"],
            ["--evaluation=nobody"],
        ] {
            assert!(
                Command::try_parse_from([&["test"], &flags[..]].concat()).is_err(),
                "{flags:?}"
            );
        }
        let flags = ["--rounds=0", "--evaluation=never"];
        assert_eq!(spec_of(&flags).unwrap_err().code(), 2);
        assert_eq!(
            spec_of(&["--lr=-1"]).unwrap_err().to_string(),
            "training.lr must be a finite number of at least 0, not -1"
        );
    }
}
