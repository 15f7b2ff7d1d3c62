//! Which version of a job is its best, and when the job ends early, as flags.

use std::str::FromStr;

use clap::{Args, builder::PossibleValuesParser, builder::TypedValueParser};

use super::values::{any_u32, any_u64, by_name};
use crate::job::{Direction, JobSpec, Metric, StopSettings};

/// What is measured, and what follows from it.
#[derive(Debug, Clone, Default, Args)]
pub struct StopArgs {
    /// The share of the training examples to keep for validation, such as 0.1: nobody trains on them, the model is tested on
    /// them, and on the test split only at the end [default: 0]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    pub validation: Option<f64>,
    /// Test the model after every N rounds and at the end [default: 1]
    #[arg(long, value_name = "N", value_parser = any_u32)]
    pub evaluate_every: Option<u32>,
    /// What decides which model is the best one, and what --target and --stop-patience look at: accuracy, loss, a metric of the
    /// trainer's own, or train_loss [default: accuracy, or loss of a model that has none]
    #[arg(long, value_name = "NAME", value_parser = Metric::from_str)]
    pub metric: Option<Metric>,
    /// Which values of the metric are better: max or min [default: min of a loss or an error, max of all else]
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(["max", "min"]).try_map(by_name::<Direction>))]
    pub direction: Option<Direction>,
    /// End the job once the metric is as good as this
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub target: Option<f64>,
    /// End the job after this many tests without an improvement
    // Its own name for clap: `fedavg submit` has a --patience, too.
    #[arg(id = "stop_patience", long = "stop-patience", value_name = "N", value_parser = any_u32)]
    pub patience: Option<u32>,
    /// By how much the metric must improve to count, for --stop-patience [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub min_improvement: Option<f64>,
    /// Begin no further round after this many seconds
    #[arg(long, value_name = "SECONDS", value_parser = any_u64)]
    pub max_seconds: Option<u64>,
    /// Begin no further round once training has cost this many joules
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub max_joules: Option<f64>,
}

impl StopArgs {
    /// Changes what the flags name.
    pub(super) fn change(&self, spec: &mut JobSpec) {
        if let Some(validation) = self.validation {
            spec.validation = validation;
        }
        if let Some(every) = self.evaluate_every {
            spec.evaluate_every = every;
        }
        if let Some(metric) = &self.metric {
            spec.best.metric = Some(metric.clone());
            // A flag wins over the file.
            if let Some(stop) = &mut spec.stop {
                stop.metric = None;
            }
        }
        if let Some(direction) = self.direction {
            spec.best.direction = Some(direction);
            if let Some(stop) = &mut spec.stop {
                stop.direction = None;
            }
        }
        let mut stop = spec.stop.clone().unwrap_or_default();
        if let Some(target) = self.target {
            match direction_of(spec, &stop) {
                Direction::Max => (stop.at_least, stop.at_most) = (Some(target), None),
                Direction::Min => (stop.at_least, stop.at_most) = (None, Some(target)),
            }
        }
        stop.patience = self.patience.or(stop.patience);
        stop.min_improvement = self.min_improvement.unwrap_or(stop.min_improvement);
        stop.max_seconds = self.max_seconds.or(stop.max_seconds);
        stop.max_joules = self.max_joules.or(stop.max_joules);
        if spec.stop.is_some() || stop != StopSettings::default() {
            spec.stop = Some(stop);
        }
    }
}

/// Which values are better of what a target is for. Without a metric, it is the accuracy.
fn direction_of(spec: &JobSpec, stop: &StopSettings) -> Direction {
    let said = stop.direction.or(spec.best.direction);
    let metric = stop.metric.as_ref().or(spec.best.metric.as_ref());
    let usual = metric.map_or(Direction::Max, Metric::usual_direction);
    said.unwrap_or(usual)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        stop: StopArgs,
    }

    fn changed(flags: &str) -> JobSpec {
        let words = format!("fedavg {flags}");
        let command = Command::parse_from(words.split_whitespace());
        let mut spec = JobSpec::default();
        command.stop.change(&mut spec);
        spec
    }

    #[test]
    fn without_flags_a_job_stays_as_it_is() {
        assert_eq!(changed(""), JobSpec::default());
    }

    #[test]
    fn a_target_is_for_the_better_side_of_its_metric() {
        let stop = changed("--target 0.9").stop.unwrap();
        assert_eq!((stop.at_least, stop.at_most), (Some(0.9), None));
        let stop = changed("--metric validation_loss --target 0.2 --validation 0.1");
        let stop = stop.stop.unwrap();
        assert_eq!((stop.at_least, stop.at_most), (None, Some(0.2)));
        let stop = changed("--metric mae --direction min --target 2 --stop-patience 3");
        let rules = stop.stop.unwrap();
        assert_eq!(rules.at_most, Some(2.0));
        assert_eq!(rules.patience, Some(3));
        assert_eq!(stop.best.direction, Some(Direction::Min));
    }
}
