//! A job as arguments: a TOML file, and flags that override it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::{Args, builder::PossibleValuesParser, builder::TypedValueParser};

use super::{Failure, Screen, model_file::read_model_bytes, values::by_name};
use crate::{
    job::{EvaluationMode, JobSpec, OptimizerKind, StrategySpec},
    parameters::{Encoding, ModelFile, Parameters},
    partition::PartitionSpec,
    strategy::Weighting,
    text::printable,
};

/// What a job is to be. What neither a flag nor the file names has the default shown.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Job")]
pub struct JobArgs {
    /// A job file: TOML with the fields of a job's specification. Flags win over it
    #[arg(value_name = "JOB.toml", help_heading = None::<&'static str>)]
    pub file: Option<PathBuf>,
    /// The model: mlp, lenet, cifar_cnn, tiny_cnn, or one of an embedder's own [default: mlp]
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// The dataset: digits, cifar10, folder:PATH, or one of an embedder's own [default: digits]
    #[arg(long, value_name = "NAME")]
    pub dataset: Option<String>,
    /// Number of clients [default: as many as there are workers at the start]
    #[arg(long, value_name = "N")]
    pub clients: Option<u32>,
    /// How the examples are dealt: iid, dirichlet:ALPHA, shard:LABELS, quantity_skew:ALPHA, proportional (by the
    /// workers' GPUs), proportional:measured (by how fast they were seen to train), or local (the workers' own data)
    /// [default: iid]
    #[arg(long, value_name = "KIND")]
    pub partition: Option<PartitionSpec>,
    /// Number of rounds to commit [default: 20]
    #[arg(long, value_name = "N")]
    pub rounds: Option<u32>,
    /// The number of the first round. To go on from another job's model (--initial), with the same seed: the number after
    /// that job's last round [default: 1]
    #[arg(long, value_name = "N")]
    pub first_round: Option<u32>,
    /// Seeds every random draw of the job [default: 1337]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// A client's passes over its partition in a round [default: 1]
    #[arg(long, value_name = "N")]
    pub local_epochs: Option<u32>,
    /// Examples per optimizer step [default: 64]
    #[arg(long, value_name = "N")]
    pub batch_size: Option<u32>,
    /// The local optimizer, new in each round [default: sgd]
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(["sgd", "adam"]).try_map(by_name::<OptimizerKind>))]
    pub optimizer: Option<OptimizerKind>,
    /// Learning rate [default: 0.01]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub lr: Option<f64>,
    /// Momentum of SGD [default: 0.9]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub momentum: Option<f64>,
    /// L2 penalty, added to the gradient as PyTorch does [default: 1e-4]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub weight_decay: Option<f64>,
    /// Flip and padded crop of the training images [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub augment: Option<bool>,
    /// How reports travel: f32, f16, bf16, int8, or top_k:FRACTION (the largest values, with error feedback)
    /// [default: f32]
    #[arg(long, value_name = "ENCODING")]
    pub encoding: Option<Encoding>,
    /// How global models travel to the workers: f32, f16, bf16 or int8 [default: f32]
    #[arg(long, value_name = "ENCODING")]
    pub model_encoding: Option<Encoding>,
    /// The share of the clients whose reports a round waits for [default: 1]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub fraction: Option<f64>,
    /// How many more clients than the goal are chosen, as a share of the goal [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub over_selection: Option<f64>,
    /// How much each report counts [default: examples]
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(["examples", "uniform"]).try_map(by_name::<Weighting>))]
    pub weighting: Option<Weighting>,
    /// Who evaluates the global model; auto: the coordinator if it has the data, else the workers [default: auto]
    #[arg(long, value_name = "WHO", value_parser = PossibleValuesParser::new(["auto", "coordinator", "workers", "never"]).try_map(by_name::<EvaluationMode>))]
    pub evaluation: Option<EvaluationMode>,
    /// Seconds from a round's beginning to its deadline [default: 900]
    #[arg(long, value_name = "SECONDS")]
    pub round_timeout: Option<u64>,
    /// The quorum: the fewest reports that may commit a round at its deadline [default: 1]
    #[arg(long, value_name = "N")]
    pub min_updates: Option<u32>,
    /// The goal: how many reports a round waits for [default: the fraction of the clients]
    #[arg(long, value_name = "N")]
    pub goal: Option<u32>,
    /// How often a round is tried before the job fails [default: 3]
    #[arg(long, value_name = "N")]
    pub max_attempts: Option<u32>,
    /// The fewest workers that the job starts with [default: 1]
    #[arg(long, value_name = "N")]
    pub min_workers: Option<u32>,
    /// Seconds that the job waits for its first workers before it fails [default: 900]
    #[arg(long, value_name = "SECONDS")]
    pub start_timeout: Option<u64>,
    /// Seconds that the workers have to evaluate a version [default: 900]
    #[arg(long, value_name = "SECONDS")]
    pub evaluation_timeout: Option<u64>,
}

impl JobArgs {
    /// The job: the file's, else the defaults, with what the flags change.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] for a file that can't be read as a job, and for values that can't be.
    pub fn spec(&self) -> Result<JobSpec, Failure> {
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
    pub fn over(&self, mut spec: JobSpec) -> Result<JobSpec, Failure> {
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
        set(&mut spec.seed, &self.seed);
        let training = &mut spec.training;
        set(&mut training.local_epochs, &self.local_epochs);
        set(&mut training.batch_size, &self.batch_size);
        set(&mut training.optimizer, &self.optimizer);
        set(&mut training.lr, &self.lr);
        set(&mut training.momentum, &self.momentum);
        set(&mut training.weight_decay, &self.weight_decay);
        set(&mut training.augment, &self.augment);
        set(&mut spec.encoding.reports, &self.encoding);
        set(&mut spec.encoding.models, &self.model_encoding);
        self.change_strategy(&mut spec.strategy)?;
        set(&mut spec.evaluation, &self.evaluation);
        let limits = &mut spec.limits;
        set(&mut limits.round_timeout, &self.round_timeout);
        set(&mut limits.min_updates, &self.min_updates);
        limits.goal = self.goal.or(limits.goal);
        set(&mut limits.max_attempts, &self.max_attempts);
        set(&mut limits.min_workers, &self.min_workers);
        set(&mut limits.start_timeout, &self.start_timeout);
        set(&mut limits.evaluation_timeout, &self.evaluation_timeout);
        spec.validate()
            .map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(spec)
    }

    fn change_strategy(&self, strategy: &mut StrategySpec) -> Result<(), Failure> {
        match strategy {
            StrategySpec::FedAvg {
                fraction,
                over_selection,
                weighting,
            } => {
                *fraction = self.fraction.unwrap_or(*fraction);
                *over_selection = self.over_selection.unwrap_or(*over_selection);
                *weighting = self.weighting.unwrap_or(*weighting);
                Ok(())
            }
            _ if self.fraction.is_none()
                && self.over_selection.is_none()
                && self.weighting.is_none() =>
            {
                Ok(())
            }
            _ => Err(Failure::Usage(
                "--fraction, --over-selection and --weighting are of strategy \"fedavg\"; the job file has another"
                    .to_string(),
            )),
        }
    }
}

/// Reads a job file.
///
/// # Errors
///
/// [`Failure::Usage`] with the file's name and the line.
pub fn read_job(file: &Path) -> Result<JobSpec, Failure> {
    let problem = |problem: String| Failure::Usage(format!("{}: {problem}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| problem(error.to_string()))?;
    toml::from_str(&text).map_err(|error| {
        let line = error
            .span()
            .map_or(1, |span| text[..span.start].matches('\n').count() + 1);
        problem(format!("line {line}: {}", error.message()))
    })
}

/// Reads a model from a safetensors file, and tells what had to be changed for it.
///
/// # Errors
///
/// [`Failure::Usage`] with the file's name.
pub fn read_model(screen: &Screen, file: &Path) -> Result<Parameters, Failure> {
    let problem = |problem: String| Failure::Usage(format!("{}: {problem}", file.display()));
    let bytes = read_model_bytes(file).map_err(|error| problem(error.to_string()))?;
    let read = ModelFile::parse(&bytes).and_then(ModelFile::into_model);
    let read = read.map_err(|error| problem(error.to_string()))?;
    for change in read.changes {
        screen.note(&printable(&format!("{}: {change}", file.display()), 1000));
    }
    Ok(read.model)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

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

    #[test]
    fn the_seeds_flags_are_the_defaults() {
        let flags = "--rounds 20 --local-epochs 1 --batch-size 64 --lr 0.01 --momentum 0.9 --weight-decay 1e-4 \
                     --round-timeout 900 --min-updates 1";
        let flags: Vec<_> = flags.split_whitespace().collect();
        assert_eq!(parse(&flags).spec().unwrap(), JobSpec::default());
        assert_eq!(parse(&[]).spec().unwrap(), JobSpec::default());
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
        let spec = parse(&flags).spec().unwrap();
        assert_eq!((spec.model.as_str(), spec.rounds), ("lenet", 9));
        assert_eq!(
            (spec.training.lr, spec.training.augment, spec.limits.goal),
            (0.5, true, Some(2))
        );
        assert_eq!(
            spec.strategy,
            StrategySpec::FedAvg {
                fraction: 0.5,
                over_selection: 0.0,
                weighting: Weighting::Uniform
            }
        );
        let partition = parse(&[file, "--partition=dirichlet:0.5"])
            .spec()
            .unwrap()
            .partition;
        assert_eq!(partition, PartitionSpec::Dirichlet { alpha: 0.5 });
    }

    #[test]
    fn settings_of_strategy_and_trainer_come_from_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("job.toml");
        let text = "strategy = { kind = 'custom', name = 'adam', settings = { betas = [0.9, 0.99] } }\n\
                    [settings]\nhidden = [64, 32]\n[settings.head]\nbias = false\n";
        fs::write(&file, text).unwrap();
        let spec = parse(&[file.to_str().unwrap()]).spec().unwrap();
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
            text.contains("job.toml: line 4: ") && text.contains("learning_rate"),
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
        assert_eq!(parse(&["--rounds=0"]).spec().unwrap_err().code(), 2);
        assert_eq!(
            parse(&["--lr=-1"]).spec().unwrap_err().to_string(),
            "training.lr must be a finite number of at least 0"
        );
    }
}
