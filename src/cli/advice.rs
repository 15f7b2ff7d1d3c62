//! What may surprise the person who asks for a job: settings that have no effect, and training that can't end well.
//!
//! None of it is wrong enough to refuse the job. It must never change anything.

use serde_json::Value;

use super::{
    job::{AskedJob, JobArgs},
    values::{number, setting},
};
use crate::{
    ids::ModelVersion,
    job::{InnerState, JobSpec, OptimizerKind, Settings, TrainingSettings},
    strategy::Catalogue,
    words::plural,
};

/// A line for each surprise.
pub(super) fn warnings(asked: &AskedJob, flags: &JobArgs) -> Vec<String> {
    let spec = &asked.spec;
    // With defaults. Of parts that only the coordinator knows, nothing can be said here.
    let mut strategy = spec.strategy.clone();
    let _ = strategy.complete(&Catalogue::default());
    let strategy = strategy.settings();
    let mut found = Vec::new();
    found.extend(dropped(asked));
    found.extend(begun_again(spec, strategy));
    found.extend(momentum(&spec.training, flags.momentum.is_some()));
    found.extend(kept_state(&spec.training));
    found.extend(warmup(spec));
    found.extend(fraction(spec, strategy));
    found.extend(weighting(strategy));
    found.extend(faults(spec));
    found.extend(pull(strategy, &spec.training));
    found
}

/// The settings of the job file's strategy that a flag has dropped.
fn dropped(asked: &AskedJob) -> Option<String> {
    if asked.dropped.is_empty() {
        return None;
    }
    let mut settings = Vec::new();
    for (key, value) in &asked.dropped {
        settings.push(format!("{key} = {value}"));
    }
    Some(format!(
        "--strategy {}: these settings of the job file belong to another strategy and do not count: {}",
        asked.spec.strategy.name(),
        settings.join(", ")
    ))
}

/// What a job that continues another one does not have of it.
fn begun_again(spec: &JobSpec, strategy: &Settings) -> Option<String> {
    if spec.first_round <= 1 {
        return None;
    }
    let mut lost = Vec::new();
    match spec.strategy.build(&Catalogue::default()) {
        Ok(Some(strategy)) => {
            let state = strategy.state();
            let tensors = state.tensors.into_iter().map(|tensor| tensor.name);
            let names: Vec<_> = tensors.chain(state.numbers.into_keys()).collect();
            if !names.is_empty() {
                lost.push(format!("the strategy's state ({})", names.join(", ")));
            }
        }
        // An embedder's.
        _ => lost.push("the strategy's state, if it has any".to_string()),
    }
    // It counts versions, and these begin at 0 in each job.
    if name(strategy, "sampler") == "round_robin" {
        lost.push("the passes of round_robin".to_string());
    }
    if spec.training.inner_state == InnerState::Keep {
        lost.push("the momentum and moments that clients keep".to_string());
    }
    if !spec.personal.is_empty() {
        lost.push("the clients' personal tensors".to_string());
    }
    if !spec.encoding.reports.is_dense() {
        lost.push(format!("what {} has not sent yet", spec.encoding.reports));
    }
    if !spec.schedule.is_constant() {
        lost.push("the schedule of the learning rate".to_string());
    }
    if lost.is_empty() {
        return None;
    }
    Some(format!(
        "--first-round {}: a job that continues another one takes over its model alone; it begins again with {}",
        spec.first_round,
        lost.join(", ")
    ))
}

/// A momentum that the optimizer does not have. The default is no wish.
fn momentum(training: &TrainingSettings, is_given: bool) -> Option<String> {
    let is_asked = is_given || training.momentum != TrainingSettings::default().momentum;
    if training.optimizer == OptimizerKind::Sgd || training.momentum == 0.0 || !is_asked {
        return None;
    }
    Some(format!(
        "training.momentum {} has no effect: it is sgd's, and the optimizer is {}",
        setting(training.momentum),
        training.optimizer.name()
    ))
}

/// An optimizer's state that is to be kept, of an optimizer without one.
fn kept_state(training: &TrainingSettings) -> Option<String> {
    let has_none = training.optimizer == OptimizerKind::Sgd && training.momentum == 0.0;
    (training.inner_state == InnerState::Keep && has_none).then(|| {
        "training.inner_state keep has no effect: sgd without momentum has no state".to_string()
    })
}

/// A warm-up that does not end in the job.
fn warmup(spec: &JobSpec) -> Option<String> {
    let warmup = spec.schedule.warmup();
    if warmup < spec.rounds {
        return None;
    }
    let last = ModelVersion(u64::from(spec.rounds) - 1);
    Some(format!(
        "schedule.warmup {warmup} is not below rounds, which is {}: the learning rate never reaches {}, and is {} in the last \
         round",
        spec.rounds,
        setting(spec.training.lr),
        number(spec.training_at(last).lr)
    ))
}

/// A share of the clients beside a number of reports.
fn fraction(spec: &JobSpec, strategy: &Settings) -> Option<String> {
    let goal = spec.limits.goal?;
    let fraction = strategy.get("fraction").and_then(Value::as_f64)?;
    (fraction != 1.0).then(|| {
        format!(
            "strategy.fraction {} has no effect: limits.goal says that a round waits for {}",
            setting(fraction),
            plural(goal, "report")
        )
    })
}

/// A weighting that q-FedAvg or a reducer does not use.
fn weighting(strategy: &Settings) -> Option<String> {
    let weighting = name(strategy, "weighting");
    if weighting == "examples" {
        return None;
    }
    let reducer = name(strategy, "reducer");
    if matches!(reducer, "median" | "trimmed_mean" | "krum" | "bulyan") {
        return Some(format!(
            "strategy.weighting {weighting} has no effect: reducer {reducer} counts all reports alike"
        ));
    }
    if name(strategy, "objective") != "qfedavg" {
        return None;
    }
    Some(format!(
        "strategy.weighting {weighting} counts for buffers alone: objective qfedavg weighs clients by their loss"
    ))
}

/// A reducer that stands nobody, or needs every report.
fn faults(spec: &JobSpec) -> Option<String> {
    let made = Catalogue::default().make(spec.strategy.name(), spec.strategy.settings());
    let needs = made.ok()?.reducer_needs(&spec.limits, spec.clients)?;
    let clients = plural(needs.cohort, "client");
    if needs.faults == Some(0) {
        return Some(format!(
            "the reducer stands no attacker: with {clients} in a round, f is 0"
        ));
    }
    (needs.fewest == needs.cohort && needs.cohort > 1).then(|| {
        format!(
            "the reducer needs the reports of all {clients} of a round, so that one that fails ends it: a smaller f or more \
             clients leave some to spare"
        )
    })
}

/// A pull towards the global model that leads away from it.
fn pull(strategy: &Settings, training: &TrainingSettings) -> Option<String> {
    let key = match name(strategy, "objective") {
        "proximal" => "mu",
        "feddyn" => "alpha",
        _ => return None,
    };
    let pull = strategy.get(key).and_then(Value::as_f64)? * training.lr;
    let limit = steepest_pull(training)?;
    (pull >= limit).then(|| {
        format!(
            "strategy.{key} * training.lr is {}, and from {} on the steps of sgd swing away from the global model, further \
             each time: keep it below 1",
            number(pull),
            number(limit)
        )
    })
}

/// From which product of learning rate and curvature on SGD diverges on a parabola: `2 (1 + p)` with momentum `p`, and `2 (1 + p) / (1 + 2 p)`
/// with Nesterov's. None for optimizers whose steps have a bounded length.
fn steepest_pull(training: &TrainingSettings) -> Option<f64> {
    let p = training.momentum;
    if training.optimizer != OptimizerKind::Sgd || training.clip_norm.is_some() || p >= 1.0 {
        return None;
    }
    let limit = 2.0 * (1.0 + p);
    Some(if training.nesterov {
        limit / (1.0 + 2.0 * p)
    } else {
        limit
    })
}

fn name<'a>(strategy: &'a Settings, key: &str) -> &'a str {
    strategy
        .get(key)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        job: JobArgs,
    }

    /// What is said of a job with these flags; at most one line is expected.
    fn said(flags: &str) -> String {
        let arguments = ["test"].into_iter().chain(flags.split_whitespace());
        let flags = Command::try_parse_from(arguments).unwrap().job;
        warnings(&flags.job().unwrap(), &flags).join("\n")
    }

    #[test]
    fn a_job_without_surprises_has_no_warnings() {
        for flags in [
            "",
            "--strategy fedadam --optimizer adamw --inner-state keep",
            "--strategy qfedavg --momentum 0",
            "--strategy fedprox --strategy-set mu=100 --lr 0.01",
            "--optimizer adam --momentum 0",
            "--warmup 19 --rounds 20",
            // Nothing is lost: FedAvg has no state.
            "--first-round 21",
            "--strategy-set sampler=own --strategy-set depth=3",
        ] {
            assert_eq!(said(flags), "", "{flags}");
        }
    }

    #[test]
    fn a_setting_without_effect_is_told() {
        for (flags, expected) in [
            (
                "--optimizer adamw --momentum 0.9",
                "training.momentum 0.9 has no effect: it is sgd's, and the optimizer is adamw",
            ),
            (
                "--inner-state keep --momentum 0",
                "training.inner_state keep has no effect: sgd without momentum has no state",
            ),
            (
                "--warmup 3 --rounds 3 --lr 0.4",
                "schedule.warmup 3 is not below rounds, which is 3: the learning rate never reaches 0.4, and is 0.3000 in the last \
                 round",
            ),
            (
                "--goal 2 --fraction 0.5",
                "strategy.fraction 0.5 has no effect: limits.goal says that a round waits for 2 reports",
            ),
            (
                "--strategy krum --clients 4",
                "the reducer stands no attacker: with 4 clients in a round, f is 0",
            ),
            (
                "--strategy bulyan --clients 15",
                "the reducer needs the reports of all 15 clients of a round, so that one that fails ends it: a smaller f or more \
                 clients leave some to spare",
            ),
            (
                "--strategy median --weighting uniform",
                "strategy.weighting uniform has no effect: reducer median counts all reports alike",
            ),
            (
                "--strategy qfedavg --weighting uniform",
                "strategy.weighting uniform counts for buffers alone: objective qfedavg weighs clients by their loss",
            ),
        ] {
            assert_eq!(said(flags), expected);
        }
    }

    #[test]
    fn what_a_continued_job_begins_again_with_is_told() {
        let told =
            "a job that continues another one takes over its model alone; it begins again with";
        for (flags, lost) in [
            ("--strategy fedadam", "the strategy's state (m, v)"),
            (
                "--strategy scaffold",
                "the strategy's state (control, control_restarts)",
            ),
            (
                "--strategy-set sampler=own",
                "the strategy's state, if it has any",
            ),
            (
                "--strategy-set sampler=round_robin",
                "the passes of round_robin",
            ),
            (
                "--inner-state keep --personal head.* --encoding top_k:0.5 --schedule cosine",
                "the momentum and moments that clients keep, the clients' personal tensors, what top_k:0.5 has not sent yet, the \
                 schedule of the learning rate",
            ),
        ] {
            let expected = format!("--first-round 21: {told} {lost}");
            assert_eq!(said(&format!("--first-round 21 {flags}")), expected);
        }
    }

    #[test]
    fn a_strategy_that_replaces_the_files_says_what_it_drops() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("job.toml");
        let text =
            "strategy = { kind = 'fedprox', mu = 0.5, fraction = 0.25, sampler = 'by_size' }\n";
        fs::write(&file, text).unwrap();
        let said = said(&format!("{} --strategy scaffold", file.display()));
        let expected = "--strategy scaffold: these settings of the job file belong to another strategy and do not count: mu = 0.5";
        assert_eq!(said, expected);
    }

    /// The distance to the global model after 500 steps on a parabola of this curvature, from a distance of 1.
    fn distance(training: &TrainingSettings, pull: f64) -> f64 {
        let (mut distance, mut velocity) = (1.0, 0.0);
        for _ in 0..500 {
            let gradient: f64 = pull * distance;
            velocity = training.momentum * velocity + gradient;
            distance -= if training.nesterov {
                gradient + training.momentum * velocity
            } else {
                velocity
            };
        }
        distance.abs()
    }

    #[test]
    fn a_pull_is_told_from_where_steps_diverge() {
        for (momentum, nesterov) in [(0.0, false), (0.9, false), (0.5, false), (0.9, true)] {
            let training = TrainingSettings {
                momentum,
                nesterov,
                ..TrainingSettings::default()
            };
            let limit = steepest_pull(&training).unwrap();
            assert!(distance(&training, 0.99 * limit) < 1.0, "{momentum}");
            assert!(distance(&training, 1.02 * limit) > 10.0, "{momentum}");
        }
        for (flags, key) in [
            ("--strategy fedprox --strategy-set mu=40", "mu"),
            ("--strategy feddyn --strategy-set alpha=40", "alpha"),
        ] {
            let flags = format!("{flags} --lr 0.1");
            let told = said(&flags);
            let expected =
                format!("strategy.{key} * training.lr is 4.0000, and from 3.8000 on the steps");
            assert!(told.starts_with(&expected), "{told}");
            assert_eq!(said(&format!("{flags} --optimizer adam")), "");
            assert_eq!(said(&format!("{flags} --clip-norm 1")), "");
        }
    }
}
