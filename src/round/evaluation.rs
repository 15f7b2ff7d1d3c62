//! Measurements of a model version.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::ClientId;

/// The most metrics of an evaluation, and the longest name of one, in bytes.
const MOST_METRICS: usize = 64;
const LONGEST_METRIC: usize = 64;

/// What is said of a loss that no training that works has.
pub(crate) const LOSS_NOT_FINITE: &str = "the loss is not a finite number";

/// What a model does on test examples.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct Evaluation {
    /// Mean loss over the examples.
    pub loss: f64,
    /// Share of the examples that are classified correctly, from 0 to 1; left out if the model is no classifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "http", schema(minimum = 0, maximum = 1))]
    pub accuracy: Option<f64>,
    /// Number of examples.
    pub examples: u64,
    /// Further measurements, by name: means over the examples, at most 64 of them; left out if there are none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
}

/// What a model does on one client's own examples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
pub struct ClientEvaluation {
    /// The client.
    pub client: ClientId,
    /// The measurements.
    #[serde(flatten)]
    pub evaluation: Evaluation,
}

impl Evaluation {
    /// This mean loss over this many examples.
    pub fn new(loss: f64, examples: u64) -> Self {
        Self {
            loss,
            examples,
            ..Self::default()
        }
    }

    /// The same with the share of the examples that are classified correctly, from 0 to 1.
    pub fn with_accuracy(mut self, accuracy: f64) -> Self {
        self.accuracy = Some(accuracy);
        self
    }

    /// The same with one more measurement: a mean over the examples.
    pub fn with_metric(mut self, name: impl Into<String>, value: f64) -> Self {
        self.metrics.insert(name.into(), value);
        self
    }

    /// The mean over parts, weighted by examples, in the order given; `None` if there is no example. A part without
    /// examples counts for nothing. Accuracy and metrics are in the mean only if all other parts have
    /// them.
    pub fn mean<'a>(parts: impl IntoIterator<Item = &'a Evaluation>) -> Option<Evaluation> {
        let mut sum: Option<Evaluation> = None;
        for part in parts {
            // Its loss may be NaN, and NaN times 0 is NaN.
            if part.examples == 0 {
                continue;
            }
            let weight = part.examples as f64;
            let mut weighted = part.clone();
            weighted.loss *= weight;
            weighted.accuracy = part.accuracy.map(|accuracy| accuracy * weight);
            for value in weighted.metrics.values_mut() {
                *value *= weight;
            }
            sum = Some(match sum {
                None => weighted,
                Some(sum) => sum.plus(&weighted),
            });
        }
        let mut mean = sum?;
        let count = mean.examples as f64;
        mean.loss /= count;
        mean.accuracy = mean.accuracy.map(|accuracy| accuracy / count);
        for value in mean.metrics.values_mut() {
            *value /= count;
        }
        Some(mean)
    }

    /// Adds what both have.
    fn plus(mut self, other: &Evaluation) -> Self {
        self.loss += other.loss;
        self.examples = self.examples.saturating_add(other.examples);
        self.accuracy = match (self.accuracy, other.accuracy) {
            (Some(sum), Some(accuracy)) => Some(sum + accuracy),
            _ => None,
        };
        // A sum of a metric that one part lacks would be divided by the examples of all parts.
        self.metrics
            .retain(|name, _| other.metrics.contains_key(name));
        for (name, sum) in &mut self.metrics {
            *sum += other.metrics[name];
        }
        self
    }

    /// Checks that every number is one that a model can have. A part without examples has no numbers, and passes.
    ///
    /// # Errors
    ///
    /// What is wrong, in words.
    pub(super) fn checked(self) -> Result<Evaluation, String> {
        if self.examples == 0 {
            return Ok(self);
        }
        if !self.loss.is_finite() {
            return Err(LOSS_NOT_FINITE.to_string());
        }
        if let Some(accuracy) = self.accuracy
            && !(0.0..=1.0).contains(&accuracy)
        {
            return Err(format!(
                "the accuracy is {accuracy}, which is not from 0 to 1"
            ));
        }
        if self.metrics.len() > MOST_METRICS {
            let count = self.metrics.len();
            return Err(format!(
                "it has {count} metrics, and {MOST_METRICS} is the most"
            ));
        }
        for (name, value) in &self.metrics {
            if name.len() > LONGEST_METRIC {
                return Err(format!(
                    "the name of a metric has {} bytes, and {LONGEST_METRIC} is the most",
                    name.len()
                ));
            }
            if !value.is_finite() {
                return Err(format!("the metric {name:?} is not a finite number"));
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_beyond_counting_are_no_panic() {
        let most = Evaluation::new(1.0, u64::MAX).with_accuracy(1.0);
        assert_eq!(Evaluation::mean([&most, &most]).unwrap().examples, u64::MAX);
    }

    #[test]
    fn a_metric_is_in_the_mean_if_all_parts_with_examples_have_it() {
        let first = Evaluation::new(1.0, 30)
            .with_accuracy(0.5)
            .with_metric("mae", 4.0)
            .with_metric("f1", 0.5);
        let second = Evaluation::new(1.0, 10).with_metric("mae", 8.0);
        let empty = Evaluation::new(f64::NAN, 0);
        let mean = Evaluation::mean([&empty, &first, &empty, &second]).unwrap();
        assert_eq!(mean, Evaluation::new(1.0, 40).with_metric("mae", 5.0));
        assert_eq!(Evaluation::mean([&empty]), None);
    }

    #[test]
    fn metrics_are_finite_and_bounded() {
        let good = Evaluation::new(1.0, 10).with_metric("mae", -3.0);
        assert_eq!(good.clone().checked(), Ok(good.clone()));
        let problem = |evaluation: Evaluation| evaluation.checked().unwrap_err();
        let diverged = good.clone().with_metric("mae", f64::NAN);
        assert_eq!(
            problem(diverged),
            "the metric \"mae\" is not a finite number"
        );
        let mut many = good.clone();
        for index in 0..MOST_METRICS {
            many.metrics.insert(format!("m{index}"), 1.0);
        }
        assert_eq!(problem(many), "it has 65 metrics, and 64 is the most");
        let long = good.with_metric("x".repeat(65), 1.0);
        assert_eq!(
            problem(long),
            "the name of a metric has 65 bytes, and 64 is the most"
        );
    }

    #[test]
    fn json_without_accuracy_or_metrics_is_read_and_written() {
        let old = r#"{"loss":0.5,"accuracy":0.75,"examples":3}"#;
        let read: Evaluation = serde_json::from_str(old).unwrap();
        assert_eq!(read, Evaluation::new(0.5, 3).with_accuracy(0.75));
        assert_eq!(serde_json::to_string(&read).unwrap(), old);
        let plain = r#"{"loss":0.5,"examples":3}"#;
        let read: Evaluation = serde_json::from_str(plain).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), plain);
    }
}
