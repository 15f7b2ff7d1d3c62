//! What a job's versions have measured so far: which one is the best, and whether the job is to end.

use serde::{Deserialize, Serialize};

use super::Evaluation;
use crate::{
    ids::{ModelVersion, RoundId},
    settings::{BestSettings, Direction, EvalSplit, EvaluationPlan, Metric, StopSettings},
};

/// How many times its first value a loss may have before training counts as diverging.
const DIVERGED: f64 = 10.0;

/// What one version was measured to be. More may follow while the job runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct MeasuredVersion {
    /// The version.
    pub version: ModelVersion,
    /// The round that made it; 0 of the initial model.
    pub round: RoundId,
    /// On the validation split; left out if it was not evaluated there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Evaluation>,
    /// On the test split; left out if it was not evaluated there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<Evaluation>,
}

impl MeasuredVersion {
    fn set(&mut self, split: EvalSplit, evaluation: &Evaluation) {
        let place = match split {
            EvalSplit::Test => &mut self.test,
            EvalSplit::Validation => &mut self.validation,
        };
        *place = Some(evaluation.clone());
    }
}

/// The best version so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct BestVersion {
    /// What decides, such as `validation_accuracy`.
    #[cfg_attr(feature = "http", schema(value_type = String))]
    pub metric: Metric,
    /// Which of its values are better.
    pub direction: Direction,
    /// Its value for this version.
    pub value: f64,
    /// The version and all that was measured of it.
    #[serde(flatten)]
    pub measured: MeasuredVersion,
}

/// Why a job ended before its last round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StopRule {
    /// The metric reached `at_least` or `at_most`.
    Target,
    /// As many measurements as `patience` says were no improvement.
    Patience,
    /// The job took `max_seconds`.
    Time,
    /// The reports cost `max_joules`.
    Energy,
    /// The loss is not finite, or more than ten times the first.
    Divergence,
}

/// A rule that holds, and the reason in words.
pub(super) type Stop = (StopRule, String);

/// What a job was measured to be so far. The same measurements always lead to the same.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Progress {
    pub best: Option<BestVersion>,
    /// The latest version that was measured.
    pub last: Option<MeasuredVersion>,
    /// The metric and the direction that `patience` looks at, its best value, and how many measurements came since.
    watched: Option<Watched>,
    first_training_loss: Option<f64>,
    first_loss: Option<f64>,
    /// Joules of all folded reports that say them.
    pub joules: f64,
    /// The first rule that held.
    pub stop: Option<Stop>,
    /// Why training diverges, if it does. Said once.
    pub diverges: Option<String>,
    /// Whether the log says so.
    pub is_told: bool,
}

/// A metric that has to improve.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Watched {
    value: f64,
    since: u32,
}

/// What a job asks of its measurements.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ProgressRules {
    /// Which version is the best.
    pub best: BestSettings,
    /// When the job ends early.
    pub stop: Option<StopSettings>,
    /// What is measured when.
    pub evaluation: EvaluationPlan,
}

impl ProgressRules {
    /// The metric that decides about the best version, of evaluations such as this one.
    fn best_metric(&self, evaluation: &Evaluation) -> Metric {
        let split = self.evaluation.split();
        match &self.best.metric {
            Some(metric) => metric.resolved(split),
            None if evaluation.accuracy.is_some() => Metric::of(split, "accuracy"),
            None => Metric::of(split, "loss"),
        }
    }
}

impl Progress {
    /// A version was evaluated on this split.
    pub fn evaluated(
        &mut self,
        rules: &ProgressRules,
        (version, round): (ModelVersion, RoundId),
        split: EvalSplit,
        evaluation: &Evaluation,
    ) {
        if self.last.as_ref().is_none_or(|last| last.version < version) {
            self.last = Some(MeasuredVersion {
                version,
                round,
                ..MeasuredVersion::default()
            });
        }
        if let Some(last) = &mut self.last
            && last.version == version
        {
            last.set(split, evaluation);
        }
        if let Some(best) = &mut self.best
            && best.measured.version == version
        {
            best.measured.set(split, evaluation);
        }
        // With a validation split, the test split says how good the result is, and decides nothing.
        if split != rules.evaluation.split() {
            return;
        }
        let metric = match &self.best {
            // The first measurement decides which it is: values of two metrics can't be compared.
            Some(best) => best.metric.clone(),
            None => rules.best_metric(evaluation),
        };
        if !metric.is_of_training()
            && let Some(value) = value_of(&metric, evaluation)
        {
            self.consider(rules, (version, round), &metric, value);
            self.note(version, split, evaluation);
        }
        let stop_metric = rules.stop.as_ref().and_then(|stop| stop.metric.clone());
        let stop_metric = stop_metric.map_or(metric, |metric| metric.resolved(split));
        if !stop_metric.is_of_training()
            && let Some(value) = value_of(&stop_metric, evaluation)
        {
            self.watch(rules, &stop_metric, value);
        }
        let first = *self.first_loss.get_or_insert(evaluation.loss);
        self.check_loss(rules, split.name(), first, evaluation.loss);
    }

    /// A version was committed: the mean of its reports' training losses, and what they cost.
    pub fn committed(
        &mut self,
        rules: &ProgressRules,
        (version, round): (ModelVersion, RoundId),
        train_loss: Option<f64>,
        joules: f64,
    ) {
        self.joules += joules;
        if let Some(stop) = &rules.stop
            && let Some(most) = stop.max_joules
            && self.joules >= most
        {
            let detail = format!(
                "the reports have cost {:.0} J, and max_joules is {most}",
                self.joules
            );
            self.stop_by(StopRule::Energy, detail);
        }
        let Some(loss) = train_loss else {
            return;
        };
        if let Some(metric) = &rules.best.metric
            && metric.is_of_training()
            && loss.is_finite()
        {
            self.consider(rules, (version, round), metric, loss);
        }
        let stop = rules.stop.as_ref();
        let stop_metric = stop.and_then(|stop| stop.metric.as_ref().or(rules.best.metric.as_ref()));
        if let Some(metric) = stop_metric
            && metric.is_of_training()
            && loss.is_finite()
        {
            self.watch(rules, metric, loss);
        }
        let first = *self.first_training_loss.get_or_insert(loss);
        self.check_loss(rules, "training", first, loss);
    }

    /// A loss that is not finite was measured on this split, or the first one was far smaller.
    pub fn check_loss(&mut self, rules: &ProgressRules, of: &str, first: f64, loss: f64) {
        // Losses may be below zero, and then have no such measure.
        let has_grown = first > 0.0 && loss > first * DIVERGED;
        if loss.is_finite() && !has_grown {
            return;
        }
        let detail = if loss.is_finite() {
            format!("the {of} loss went from {first:.4} to {loss:.4}")
        } else {
            format!("the {of} loss is not a finite number")
        };
        if rules.stop.is_some() {
            self.stop_by(StopRule::Divergence, detail);
        } else {
            self.diverges.get_or_insert(detail);
        }
    }

    /// The first rule that holds ends the job.
    pub fn stop_by(&mut self, rule: StopRule, detail: String) {
        self.stop.get_or_insert((rule, detail));
    }

    /// Takes a version as the best one if it is better than those before. Of equal ones, the first stays.
    fn consider(
        &mut self,
        rules: &ProgressRules,
        (version, round): (ModelVersion, RoundId),
        metric: &Metric,
        value: f64,
    ) {
        let direction = rules
            .best
            .direction
            .unwrap_or_else(|| metric.usual_direction());
        if let Some(best) = &self.best
            && !direction.is_better(value, best.value, 0.0)
        {
            return;
        }
        self.best = Some(BestVersion {
            metric: metric.clone(),
            direction,
            value,
            measured: MeasuredVersion {
                version,
                round,
                ..MeasuredVersion::default()
            },
        });
    }

    /// Adds a measurement to the best version, if it is of it.
    fn note(&mut self, version: ModelVersion, split: EvalSplit, evaluation: &Evaluation) {
        if let Some(best) = &mut self.best
            && best.measured.version == version
        {
            best.measured.set(split, evaluation);
        }
    }

    /// Looks at the rules of a metric.
    fn watch(&mut self, rules: &ProgressRules, metric: &Metric, value: f64) {
        let Some(stop) = &rules.stop else {
            return;
        };
        if let Some(target) = stop.at_least
            && value >= target
        {
            let detail = format!("{metric} is {value:.4}, and at_least is {target}");
            self.stop_by(StopRule::Target, detail);
        }
        if let Some(target) = stop.at_most
            && value <= target
        {
            let detail = format!("{metric} is {value:.4}, and at_most is {target}");
            self.stop_by(StopRule::Target, detail);
        }
        let Some(patience) = stop.patience else {
            return;
        };
        // The direction of the best version holds for its own metric alone.
        let is_of_best = stop.metric.is_none() || stop.metric == rules.best.metric;
        let of_best = rules.best.direction.filter(|_| is_of_best);
        let direction = stop.direction.or(of_best);
        let direction = direction.unwrap_or_else(|| metric.usual_direction());
        let margin = stop.min_improvement;
        match &mut self.watched {
            Some(watched) if !direction.is_better(value, watched.value, margin) => {
                watched.since += 1;
                if watched.since >= patience {
                    let best = watched.value;
                    let detail = format!(
                        "{metric} has not improved on {best:.4} in {patience} measurements"
                    );
                    self.stop_by(StopRule::Patience, detail);
                }
            }
            watched => *watched = Some(Watched { value, since: 0 }),
        }
    }
}

/// The value of a metric in an evaluation, if it has it.
fn value_of(metric: &Metric, evaluation: &Evaluation) -> Option<f64> {
    match metric.name() {
        "loss" => Some(evaluation.loss),
        "accuracy" => evaluation.accuracy,
        name => evaluation.metrics.get(name).copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(stop: Option<StopSettings>) -> ProgressRules {
        ProgressRules {
            stop,
            ..ProgressRules::default()
        }
    }

    /// The progress after these accuracies of versions 1, 2, …
    fn after(rules: &ProgressRules, accuracies: &[f64]) -> Progress {
        let mut progress = Progress::default();
        for (accuracy, number) in accuracies.iter().zip(1..) {
            let evaluation = Evaluation::new(1.0 - accuracy, 10).with_accuracy(*accuracy);
            let version = (ModelVersion(number), RoundId(number));
            progress.evaluated(rules, version, rules.evaluation.split(), &evaluation);
        }
        progress
    }

    fn best_version(progress: &Progress) -> u64 {
        progress.best.as_ref().unwrap().measured.version.0
    }

    #[test]
    fn the_first_of_the_highest_accuracies_is_the_best() {
        let progress = after(&rules(None), &[0.5, 0.9, 0.7, 0.9]);
        let best = progress.best.as_ref().unwrap();
        assert_eq!(best_version(&progress), 2);
        assert_eq!(best.metric.to_string(), "test_accuracy");
        assert_eq!(best.measured.test.as_ref().unwrap().accuracy, Some(0.9));
        assert_eq!(progress.last.unwrap().version, ModelVersion(4));
        assert_eq!(progress.stop, None);
    }

    #[test]
    fn a_model_without_accuracy_is_judged_by_its_loss() {
        let mut progress = Progress::default();
        for (number, loss) in [(1, 2.0), (2, 0.5), (3, 0.7)] {
            let version = (ModelVersion(number), RoundId(number));
            let evaluation = Evaluation::new(loss, 10);
            progress.evaluated(&rules(None), version, EvalSplit::Test, &evaluation);
        }
        assert_eq!(best_version(&progress), 2);
        assert_eq!(progress.best.unwrap().metric.to_string(), "test_loss");
    }

    #[test]
    fn with_a_validation_split_the_test_split_decides_nothing() {
        let mut rules = rules(Some(StopSettings {
            at_least: Some(0.8),
            ..StopSettings::default()
        }));
        rules.evaluation.validation = true;
        let mut progress = after(&rules, &[0.5, 0.7, 0.6]);
        assert_eq!(best_version(&progress), 2);
        let tested = Evaluation::new(0.1, 10).with_accuracy(0.95);
        for number in [3, 2] {
            let version = (ModelVersion(number), RoundId(number));
            progress.evaluated(&rules, version, EvalSplit::Test, &tested);
        }
        let best = progress.best.unwrap();
        assert_eq!(best.measured.version, ModelVersion(2));
        assert_eq!(best.metric.to_string(), "validation_accuracy");
        assert_eq!(best.measured.test, Some(tested.clone()));
        assert_eq!(progress.last.unwrap().test, Some(tested));
        assert_eq!(progress.stop, None);
    }

    #[test]
    fn a_target_ends_it_at_once_and_patience_after_as_many_measurements() {
        let target = rules(Some(StopSettings {
            at_least: Some(0.9),
            ..StopSettings::default()
        }));
        assert_eq!(after(&target, &[0.5, 0.89]).stop, None);
        let (rule, detail) = after(&target, &[0.5, 0.9]).stop.unwrap();
        assert_eq!(rule, StopRule::Target);
        assert!(detail.contains("test_accuracy is 0.9000"), "{detail}");
        let patience = rules(Some(StopSettings {
            patience: Some(2),
            min_improvement: 0.01,
            ..StopSettings::default()
        }));
        // 0.505 is better than 0.5, and not by enough: the reference stays.
        assert_eq!(after(&patience, &[0.5, 0.505, 0.512]).stop, None);
        let (rule, _) = after(&patience, &[0.5, 0.505, 0.509]).stop.unwrap();
        assert_eq!(rule, StopRule::Patience);
        let falling = rules(Some(StopSettings {
            metric: Some("loss".parse().unwrap()),
            at_most: Some(0.2),
            ..StopSettings::default()
        }));
        assert_eq!(after(&falling, &[0.5, 0.7]).stop, None);
        assert!(after(&falling, &[0.5, 0.85]).stop.is_some());
    }

    #[test]
    fn divergence_ends_a_job_with_a_rule_and_is_told_of_one_without() {
        let with = rules(Some(StopSettings {
            max_seconds: Some(1000),
            ..StopSettings::default()
        }));
        let run = |rules: &ProgressRules, losses: &[f64]| {
            let mut progress = Progress::default();
            for (loss, number) in losses.iter().zip(1..) {
                let version = (ModelVersion(number), RoundId(number));
                progress.committed(rules, version, Some(*loss), 0.0);
            }
            progress
        };
        assert_eq!(run(&with, &[2.0, 19.0]).stop, None);
        assert_eq!(
            run(&with, &[2.0, 21.0]).stop.unwrap().0,
            StopRule::Divergence
        );
        assert_eq!(
            run(&with, &[2.0, f64::NAN]).stop.unwrap().0,
            StopRule::Divergence
        );
        let without = run(&rules(None), &[2.0, 21.0, 90.0]);
        assert_eq!(without.stop, None);
        assert!(without.diverges.unwrap().contains("from 2.0000 to 21.0000"));
        assert_eq!(run(&with, &[-1.0, 5.0]).stop, None);
    }

    #[test]
    fn energy_is_added_up() {
        let rules = rules(Some(StopSettings {
            max_joules: Some(100.0),
            ..StopSettings::default()
        }));
        let mut progress = Progress::default();
        progress.committed(&rules, (ModelVersion(1), RoundId(1)), None, 60.0);
        assert_eq!(progress.stop, None);
        progress.committed(&rules, (ModelVersion(2), RoundId(2)), None, 40.0);
        assert_eq!(progress.stop.unwrap().0, StopRule::Energy);
    }
}
