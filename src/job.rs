//! What an operator may ask for: the specification of a job, with its validation.

mod description;

pub use description::JobDescription;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use crate::settings::{OptimizerKind, RoundLimits, TrainingSettings};

use crate::{
    parameters::Encoding,
    partition::PartitionSpec,
    settings::StrictTrainingSettings,
    strategy::{FedAvg, FederatedStrategy, UniformSampler, Weighting},
};

/// Free-form settings: names with JSON values, which whoever they are for reads.
pub type Settings = serde_json::Map<String, serde_json::Value>;

/// The most that settings may have, in bytes as JSON.
const MOST_SETTINGS: usize = 64 << 10;

/// One training run. Every field has a default, so `{}` is a job: `mlp` on `digits`.
///
/// In TOML:
///
/// ```toml
/// model = "cifar_cnn"
/// dataset = "cifar10"
/// rounds = 20
///
/// [partition]
/// kind = "dirichlet"
/// alpha = 0.5
///
/// [training]
/// local_epochs = 1
/// lr = 0.01
///
/// [settings] # for the trainer: whatever it understands
/// hidden = [64, 32]
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct JobSpec {
    /// The name of a model that the coordinator and the workers have a factory for.
    pub model: String,
    /// The name of the dataset: `digits`, `cifar10`, `folder:NAME` or one that an embedder registered.
    pub dataset: String,
    /// Number of clients. Without it: as many as there are workers when the job starts.
    pub clients: Option<u32>,
    /// How the examples are dealt over the clients.
    #[cfg_attr(feature = "http", schema(value_type = Object))]
    pub partition: PartitionSpec,
    /// Number of rounds to commit.
    pub rounds: u32,
    /// Seeds every random draw of the job.
    pub seed: u64,
    /// How clients train.
    #[serde(deserialize_with = "StrictTrainingSettings::deserialize")]
    pub training: TrainingSettings,
    /// The algorithm.
    pub strategy: StrategySpec,
    /// Who evaluates the global model.
    pub evaluation: EvaluationMode,
    /// When rounds begin and end.
    pub limits: RoundLimits,
    /// How reports and models travel.
    #[serde(deserialize_with = "StrictEncodings::deserialize")]
    pub encoding: Encodings,
    /// Settings for the trainers, which get them as they are; at most 64 KiB as JSON. Left out if there are none.
    #[serde(skip_serializing_if = "Settings::is_empty")]
    #[cfg_attr(feature = "http", schema(value_type = Object))]
    pub settings: Settings,
}

impl Default for JobSpec {
    fn default() -> Self {
        Self {
            model: "mlp".to_string(),
            dataset: "digits".to_string(),
            clients: None,
            partition: PartitionSpec::Iid,
            rounds: 20,
            seed: 1337,
            training: TrainingSettings::default(),
            strategy: StrategySpec::default(),
            evaluation: EvaluationMode::default(),
            limits: RoundLimits::default(),
            encoding: Encodings::default(),
            settings: Settings::new(),
        }
    }
}

/// The algorithm of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum StrategySpec {
    /// Federated averaging.
    #[serde(rename = "fedavg")]
    FedAvg {
        /// The share of the clients whose reports a round waits for, above 0 and at most 1.
        #[serde(default = "one")]
        fraction: f64,
        /// How many more clients than the goal are chosen, as a share of the goal.
        #[serde(default)]
        over_selection: f64,
        /// How much each report counts.
        #[serde(default)]
        weighting: Weighting,
    },
    /// A strategy that an embedder registered with the coordinator under this name.
    Custom {
        /// The name.
        name: String,
        /// Settings that the strategy reads; at most 64 KiB as JSON. Left out if there are none.
        #[serde(default, skip_serializing_if = "Settings::is_empty")]
        #[cfg_attr(feature = "http", schema(value_type = Object))]
        settings: Settings,
    },
}

fn one() -> f64 {
    1.0
}

impl Default for StrategySpec {
    fn default() -> Self {
        Self::FedAvg {
            fraction: 1.0,
            over_selection: 0.0,
            weighting: Weighting::Examples,
        }
    }
}

impl StrategySpec {
    /// The strategy, where it is one of this crate's; `None` for an embedder's own.
    pub fn build(&self) -> Option<Box<dyn FederatedStrategy>> {
        match *self {
            Self::FedAvg {
                fraction,
                over_selection,
                weighting,
            } => Some(Box::new(FedAvg {
                sampler: UniformSampler {
                    fraction,
                    over_selection,
                },
                weighting,
            })),
            Self::Custom { .. } => None,
        }
    }
}

/// Who evaluates the global model on the test split.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum EvaluationMode {
    /// The coordinator where it has the data, else the workers.
    #[default]
    Auto,
    /// The coordinator; a job is refused where it lacks the data.
    Coordinator,
    /// The workers: each client evaluates its share of the test split, weighted by examples.
    Workers,
    /// Nobody.
    Never,
}

/// How parameters travel, each as text: `f32`, `f16`, `bf16`, `int8`, `top_k:FRACTION`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Encodings {
    /// The deltas in reports.
    #[cfg_attr(feature = "http", schema(value_type = String))]
    pub reports: Encoding,
    /// The global models that workers download; `top_k` is for reports alone. The coordinator's own model stays f32.
    #[cfg_attr(feature = "http", schema(value_type = String))]
    pub models: Encoding,
}

/// [`Encodings`] in a job, where a field that is not known is misspelt.
#[derive(Deserialize)]
#[serde(
    remote = "Encodings",
    default = "Encodings::default",
    deny_unknown_fields
)]
struct StrictEncodings {
    reports: Encoding,
    models: Encoding,
}

impl JobSpec {
    /// Checks what can be checked without a coordinator: every number in its range, and limits that fit each other.
    ///
    /// # Errors
    ///
    /// [`JobError`] names the field.
    pub fn validate(&self) -> Result<(), JobError> {
        let at_least_one = |field, value: u64| match value {
            0 => Err(JobError::new(field, "must be at least 1")),
            _ => Ok(()),
        };
        at_least_one("rounds", self.rounds.into())?;
        at_least_one("clients", self.clients.unwrap_or(1).into())?;
        at_least_one("training.local_epochs", self.training.local_epochs.into())?;
        at_least_one("training.batch_size", self.training.batch_size.into())?;
        at_least_one("limits.round_timeout", self.limits.round_timeout)?;
        at_least_one("limits.min_updates", self.limits.min_updates.into())?;
        at_least_one("limits.goal", self.limits.goal.unwrap_or(1).into())?;
        at_least_one("limits.max_attempts", self.limits.max_attempts.into())?;
        at_least_one("limits.min_workers", self.limits.min_workers.into())?;
        at_least_one("limits.start_timeout", self.limits.start_timeout)?;
        at_least_one("limits.evaluation_timeout", self.limits.evaluation_timeout)?;
        let not_negative = |field, value: f64| match value.is_finite() && value >= 0.0 {
            true => Ok(()),
            false => Err(JobError::new(
                field,
                "must be a finite number of at least 0",
            )),
        };
        not_negative("training.lr", self.training.lr)?;
        not_negative("training.momentum", self.training.momentum)?;
        not_negative("training.weight_decay", self.training.weight_decay)?;
        if let StrategySpec::FedAvg {
            fraction,
            over_selection,
            ..
        } = self.strategy
        {
            not_negative("strategy.over_selection", over_selection)?;
            if !(fraction > 0.0 && fraction <= 1.0) {
                return Err(JobError::new(
                    "strategy.fraction",
                    "must be above 0 and at most 1",
                ));
            }
        }
        check_size("settings", &self.settings)?;
        if let StrategySpec::Custom { settings, .. } = &self.strategy {
            check_size("strategy.settings", settings)?;
        }
        if !self.encoding.models.is_dense() {
            return Err(JobError::new(
                "encoding.models",
                "can't be top_k, which is for reports alone",
            ));
        }
        let quorum = self.limits.min_updates;
        if self.limits.goal.is_some_and(|goal| goal < quorum) {
            return Err(JobError::new("limits.goal", "is below limits.min_updates"));
        }
        if self
            .clients
            .is_some_and(|clients| clients < quorum.max(self.limits.goal.unwrap_or(0)))
        {
            return Err(JobError::new(
                "clients",
                "are fewer than limits.min_updates or limits.goal",
            ));
        }
        Ok(())
    }
}

fn check_size(field: &'static str, settings: &Settings) -> Result<(), JobError> {
    let text = serde_json::to_string(settings)
        .map_err(|error| JobError::new(field, format!("can't be written as JSON: {error}")))?;
    if text.len() > MOST_SETTINGS {
        let problem = format!(
            "has {} bytes as JSON, and {MOST_SETTINGS} is the most",
            text.len()
        );
        return Err(JobError::new(field, problem));
    }
    Ok(())
}

/// What is wrong with a job's specification.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field} {problem}")]
pub struct JobError {
    /// The field, as in TOML: `training.lr`.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

impl JobError {
    /// A problem of a field.
    pub fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self {
            field,
            problem: problem.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_document_is_a_job_with_the_seeds_defaults() {
        let spec: JobSpec = serde_json::from_str("{}").unwrap();
        assert_eq!(spec, JobSpec::default());
        assert!(spec.validate().is_ok());
        let training = &spec.training;
        assert_eq!(
            (spec.rounds, training.local_epochs, training.batch_size),
            (20, 1, 64)
        );
        assert_eq!(
            (training.lr, training.momentum, training.weight_decay),
            (0.01, 0.9, 1e-4)
        );
        assert_eq!(
            (spec.limits.round_timeout, spec.limits.min_updates),
            (900, 1)
        );
    }

    #[test]
    fn a_misspelt_field_is_refused() {
        for text in [
            r#"{"learning_rate":1}"#,
            r#"{"training":{"learning_rate":1}}"#,
            r#"{"encoding":{"learning_rate":"f32"}}"#,
            r#"{"limits":{"learning_rate":1}}"#,
            r#"{"strategy":{"kind":"custom","name":"a","learning_rate":1}}"#,
        ] {
            let error = serde_json::from_str::<JobSpec>(text).unwrap_err();
            assert!(error.to_string().contains("learning_rate"), "{error}");
        }
        let task: TrainingSettings =
            serde_json::from_str(r#"{"learning_rate":1,"lr":0.5}"#).unwrap();
        assert_eq!(task.lr, 0.5, "a task of a newer coordinator is read");
        let spec: JobSpec = serde_json::from_str(r#"{"training":{"lr":0.5}}"#).unwrap();
        assert_eq!((spec.training.batch_size, spec.training.lr), (64, 0.5));
    }

    #[test]
    fn encodings_are_named_and_an_unknown_one_is_refused() {
        let read = |text: &str| serde_json::from_str::<JobSpec>(text);
        let spec = read(r#"{"encoding":{"reports":"top_k:0.05","models":"bf16"}}"#).unwrap();
        let expected = Encodings {
            reports: Encoding::TopK { fraction: 0.05 },
            models: Encoding::Bf16,
        };
        assert_eq!(spec.encoding, expected);
        let again = read(&serde_json::to_string(&spec).unwrap()).unwrap();
        assert_eq!(again, spec);
        let error = read(r#"{"encoding":{"reports":"int4"}}"#).unwrap_err();
        assert!(error.to_string().contains("int4"), "{error}");
    }

    #[test]
    fn settings_travel_as_they_are_and_have_a_bound() {
        let text = r#"{"settings":{"depth":3},"strategy":{"kind":"custom","name":"adam","settings":{"betas":[0.9,0.99]}}}"#;
        let mut spec: JobSpec = serde_json::from_str(text).unwrap();
        assert_eq!(spec.settings["depth"], 3);
        let StrategySpec::Custom { name, settings } = &spec.strategy else {
            panic!("{spec:?}");
        };
        assert_eq!(
            (name.as_str(), &settings["betas"][1]),
            ("adam", &0.99.into())
        );
        let again: JobSpec = serde_json::from_str(&serde_json::to_string(&spec).unwrap()).unwrap();
        assert_eq!(again, spec);
        assert_eq!(spec.validate(), Ok(()));
        // With the name, the quotes, the colon and the braces: one byte more than the most.
        let long = "x".repeat(MOST_SETTINGS - 7);
        spec.settings = Settings::from_iter([("a".to_string(), long.into())]);
        let error = spec.validate().unwrap_err();
        assert_eq!(
            error.to_string(),
            "settings has 65537 bytes as JSON, and 65536 is the most"
        );
        let settings = std::mem::take(&mut spec.settings);
        let name = "adam".to_string();
        spec.strategy = StrategySpec::Custom { name, settings };
        assert_eq!(spec.validate().unwrap_err().field, "strategy.settings");
    }

    #[test]
    fn each_number_out_of_range_names_its_field() {
        let problem = |change: fn(&mut JobSpec)| {
            let mut spec = JobSpec::default();
            change(&mut spec);
            spec.validate().unwrap_err().field
        };
        assert_eq!(problem(|spec| spec.rounds = 0), "rounds");
        assert_eq!(problem(|spec| spec.training.lr = f64::NAN), "training.lr");
        assert_eq!(
            problem(|spec| spec.encoding.models = Encoding::TopK { fraction: 0.1 }),
            "encoding.models"
        );
        assert_eq!(
            problem(|spec| spec.training.batch_size = 0),
            "training.batch_size"
        );
        assert_eq!(
            problem(|spec| spec.strategy = StrategySpec::FedAvg {
                fraction: 0.0,
                over_selection: 0.0,
                weighting: Weighting::Examples
            }),
            "strategy.fraction"
        );
        assert_eq!(
            problem(|spec| {
                spec.limits.min_updates = 5;
                spec.limits.goal = Some(4);
            }),
            "limits.goal"
        );
        assert_eq!(
            problem(|spec| {
                spec.limits.min_updates = 5;
                spec.clients = Some(4);
            }),
            "clients"
        );
    }
}
