//! What a version is measured on, and which of its measurements decides something.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::SettingError;

/// The longest name of a metric, in bytes.
const LONGEST: usize = 64;

/// A set of examples that versions are evaluated on.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum EvalSplit {
    /// The dataset's test split.
    #[default]
    Test,
    /// The part of the training split that the job's `validation` keeps from training.
    Validation,
}

impl EvalSplit {
    /// For serde: whether it is the test split, which is left out.
    pub(crate) fn is_test(&self) -> bool {
        *self == Self::Test
    }

    /// `test` or `validation`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Test => "test",
            Self::Validation => "validation",
        }
    }
}

impl fmt::Display for EvalSplit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// A measurement by its name: `train_loss`; `loss`, `accuracy` or a metric of the trainer's own; each of them with `test_` or
/// `validation_` before it, or else of the split that the job evaluates its versions on. Serialised as its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Metric {
    source: Source,
    name: String,
}

/// Where a measurement comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The clients' reports.
    Training,
    /// An evaluation on this split.
    Split(EvalSplit),
    /// An evaluation on the split that the job uses.
    Any,
}

impl Metric {
    /// A measurement of an evaluation on this split: `loss`, `accuracy` or another name.
    pub fn of(split: EvalSplit, name: impl Into<String>) -> Self {
        Self {
            source: Source::Split(split),
            name: name.into(),
        }
    }

    /// The name without the split.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the clients measure it while they train.
    pub fn is_of_training(&self) -> bool {
        self.source == Source::Training
    }

    /// The split that it names.
    pub fn split(&self) -> Option<EvalSplit> {
        match self.source {
            Source::Split(split) => Some(split),
            Source::Training | Source::Any => None,
        }
    }

    /// The same of a job whose versions are evaluated on this split.
    pub fn resolved(&self, split: EvalSplit) -> Self {
        let mut resolved = self.clone();
        if resolved.source == Source::Any {
            resolved.source = Source::Split(split);
        }
        resolved
    }

    /// Which direction is better, unless the job says it: less of a `loss` or of anything whose name ends with `loss` or
    /// `error`, more of all else.
    pub fn usual_direction(&self) -> Direction {
        if self.name.ends_with("loss") || self.name.ends_with("error") {
            Direction::Min
        } else {
            Direction::Max
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source {
            Source::Training => write!(formatter, "train_{}", self.name),
            Source::Split(split) => write!(formatter, "{split}_{}", self.name),
            Source::Any => formatter.write_str(&self.name),
        }
    }
}

impl FromStr for Metric {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || text.len() > LONGEST || text.chars().any(char::is_control) {
            let problem = format!(
                "must be a name of 1 to {LONGEST} bytes, such as accuracy, validation_loss or train_loss"
            );
            return Err(SettingError::new("metric", problem));
        }
        let (source, name) = if text == "train_loss" {
            (Source::Training, "loss")
        } else if let Some(name) = text.strip_prefix("test_") {
            (Source::Split(EvalSplit::Test), name)
        } else if let Some(name) = text.strip_prefix("validation_") {
            (Source::Split(EvalSplit::Validation), name)
        } else {
            (Source::Any, text)
        };
        Ok(Self {
            source,
            name: name.to_string(),
        })
    }
}

impl TryFrom<String> for Metric {
    type Error = SettingError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Metric> for String {
    fn from(metric: Metric) -> Self {
        metric.to_string()
    }
}

/// Which values of a metric are better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Larger ones.
    Max,
    /// Smaller ones.
    Min,
}

impl Direction {
    /// Whether `value` is better than `other` by more than `margin`, which is at least 0.
    pub fn is_better(self, value: f64, other: f64, margin: f64) -> bool {
        match self {
            Self::Max => value > other + margin,
            Self::Min => value < other - margin,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Max => "max",
            Self::Min => "min",
        })
    }
}

impl FromStr for Direction {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "max" => Ok(Self::Max),
            "min" => Ok(Self::Min),
            _ => Err(SettingError::new("direction", "must be max or min")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_metric_are_inverses() {
        for text in [
            "train_loss",
            "accuracy",
            "loss",
            "test_accuracy",
            "validation_loss",
            "validation_f1",
            "f1",
        ] {
            let metric: Metric = text.parse().unwrap();
            assert_eq!(metric.to_string(), text);
        }
        for text in ["", "a\nb", &"x".repeat(65)] {
            assert!(text.parse::<Metric>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_without_a_split_is_of_the_jobs_own() {
        let metric: Metric = "f1".parse().unwrap();
        let resolved = metric.resolved(EvalSplit::Validation);
        assert_eq!(resolved.to_string(), "validation_f1");
        let named: Metric = "test_f1".parse().unwrap();
        assert_eq!(named.resolved(EvalSplit::Validation), named);
    }

    #[test]
    fn less_of_a_loss_is_better_and_more_of_all_else() {
        let direction = |text: &str| text.parse::<Metric>().unwrap().usual_direction();
        assert_eq!(direction("train_loss"), Direction::Min);
        assert_eq!(direction("validation_square_error"), Direction::Min);
        assert_eq!(direction("accuracy"), Direction::Max);
        assert!(Direction::Min.is_better(0.5, 1.0, 0.1));
        assert!(!Direction::Min.is_better(0.95, 1.0, 0.1));
        assert!(!Direction::Max.is_better(1.0, 1.0, 0.0));
        assert!(!Direction::Max.is_better(f64::NAN, 1.0, 0.0));
    }
}
