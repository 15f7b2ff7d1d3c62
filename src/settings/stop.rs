//! Which version of a job is its best, and when a job ends before its last round.

use serde::{Deserialize, Serialize};

use super::{Direction, EvalSplit, Metric, SettingError};

/// Which version counts as the best one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct BestSettings {
    /// What decides: `loss`, `accuracy` or a metric of the trainer's own, of the validation split if the job has one, else of the
    /// test split; or `train_loss`. Without it, the accuracy, and the loss of a model that has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "http", schema(value_type = Option<String>))]
    pub metric: Option<Metric>,
    /// Which values are better. Without it: `min` of what ends with `loss` or `error`, `max` of all else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
}

impl BestSettings {
    /// Whether nothing was said, for serde.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// When a job ends before its last round. The first rule that holds ends it; a loss that is not finite, or more than ten
/// times the first, ends it in any case.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct StopSettings {
    /// What `at_least`, `at_most` and `patience` look at; without it, what decides about the best version.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "http", schema(value_type = Option<String>))]
    pub metric: Option<Metric>,
    /// Which values of it are better, for `patience`. Without it, as for the best version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// End once the metric is at least this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_least: Option<f64>,
    /// End once the metric is at most this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_most: Option<f64>,
    /// End after this many measurements in a row that are no improvement.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "http", schema(minimum = 1))]
    pub patience: Option<u32>,
    /// By how much a measurement must be better than the best before it to be an improvement, for `patience`.
    #[serde(skip_serializing_if = "is_zero")]
    #[cfg_attr(feature = "http", schema(minimum = 0))]
    pub min_improvement: f64,
    /// Begin no further round this many seconds after the job started; time in which the coordinator was away does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "http", schema(minimum = 1))]
    pub max_seconds: Option<u64>,
    /// Begin no further round once the folded reports have cost this many joules, as far as devices were measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_joules: Option<f64>,
}

fn is_zero(number: &f64) -> bool {
    *number == 0.0
}

impl StopSettings {
    /// Whether a rule looks at a metric.
    pub fn needs_metric(&self) -> bool {
        self.at_least.is_some() || self.at_most.is_some() || self.patience.is_some()
    }

    /// Checks that each number is in its range, and that there is a rule.
    ///
    /// # Errors
    ///
    /// [`SettingError`] names the field.
    pub fn check(&self) -> Result<(), SettingError> {
        let has_rule =
            self.needs_metric() || self.max_seconds.is_some() || self.max_joules.is_some();
        if !has_rule {
            let problem =
                "has no rule: give at_least, at_most, patience, max_seconds or max_joules";
            return Err(SettingError::new("", problem));
        }
        for (field, value) in [("at_least", self.at_least), ("at_most", self.at_most)] {
            if value.is_some_and(|value| !value.is_finite()) {
                return Err(SettingError::new(field, "must be a finite number"));
            }
        }
        if self.patience == Some(0) {
            return Err(SettingError::new("patience", "must be at least 1, not 0"));
        }
        if !self.min_improvement.is_finite() || self.min_improvement < 0.0 {
            let problem = "must be a finite number of at least 0";
            return Err(SettingError::new("min_improvement", problem));
        }
        if self.patience.is_none() && self.min_improvement != 0.0 {
            let problem = "is for patience, which the job does not have";
            return Err(SettingError::new("min_improvement", problem));
        }
        if self.max_seconds == Some(0) {
            return Err(SettingError::new(
                "max_seconds",
                "must be at least 1, not 0",
            ));
        }
        if let Some(joules) = self.max_joules
            && !(joules.is_finite() && joules > 0.0)
        {
            let problem = "must be a finite number above 0";
            return Err(SettingError::new("max_joules", problem));
        }
        if !self.needs_metric() && (self.metric.is_some() || self.direction.is_some()) {
            let problem = "is for at_least, at_most and patience, and the job has none of them";
            return Err(SettingError::new("metric", problem));
        }
        Ok(())
    }
}

/// On what versions are measured, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvaluationPlan {
    /// Whether a part of the training split is kept for validation: versions are then measured on it, and the test split is for
    /// the end.
    #[serde(default)]
    pub validation: bool,
    /// Each version whose number can be divided by this is measured, and the last one.
    pub every: u32,
}

impl Default for EvaluationPlan {
    fn default() -> Self {
        Self {
            validation: false,
            every: 1,
        }
    }
}

impl EvaluationPlan {
    /// The split that versions are measured on while the job runs.
    pub fn split(&self) -> EvalSplit {
        if self.validation {
            EvalSplit::Validation
        } else {
            EvalSplit::Test
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_needed_and_each_number_is_in_its_range() {
        let rule = |change: fn(&mut StopSettings)| {
            let mut stop = StopSettings {
                patience: Some(3),
                ..StopSettings::default()
            };
            change(&mut stop);
            stop.check().map_err(|error| error.field)
        };
        assert_eq!(rule(|_| ()), Ok(()));
        assert_eq!(rule(|stop| stop.patience = None), Err(""));
        assert_eq!(rule(|stop| stop.patience = Some(0)), Err("patience"));
        assert_eq!(rule(|stop| stop.at_least = Some(f64::NAN)), Err("at_least"));
        assert_eq!(
            rule(|stop| stop.min_improvement = -0.1),
            Err("min_improvement")
        );
        assert_eq!(rule(|stop| stop.max_seconds = Some(0)), Err("max_seconds"));
        assert_eq!(rule(|stop| stop.max_joules = Some(0.0)), Err("max_joules"));
        let only_time = |change: fn(&mut StopSettings)| {
            let mut stop = StopSettings {
                max_seconds: Some(3),
                ..StopSettings::default()
            };
            change(&mut stop);
            stop.check().map_err(|error| error.field)
        };
        assert_eq!(only_time(|_| ()), Ok(()));
        assert_eq!(
            only_time(|stop| stop.min_improvement = 0.1),
            Err("min_improvement")
        );
        assert_eq!(
            only_time(|stop| stop.direction = Some(Direction::Min)),
            Err("metric")
        );
    }
}
