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
    found.extend(bounds(spec));
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

/// A momentum that the optimizer does not have. The default counts as not asked for.
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

/// A reducer that tolerates no attacker, or needs every report.
fn faults(spec: &JobSpec) -> Option<String> {
    let made = Catalogue::default().make(spec.strategy.name(), spec.strategy.settings());
    let needs = made.ok()?.reducer_needs(&spec.limits, spec.clients)?;
    let clients = plural(needs.cohort, "client");
    if needs.faults == Some(0) {
        let why = match needs.because {
            // The others would be no majority.
            _ if needs.cohort <= 2 => format!("a round has {clients}, and 3 are the fewest"),
            Some(because) => format!("a round has {clients}, and {because}"),
            None => format!("with {clients} in a round, f is 0"),
        };
        return Some(format!("the reducer tolerates no attacker: {why}"));
    }
    if needs.fewest < needs.cohort || needs.cohort <= 1 {
        return None;
    }
    let remedy = match needs.remedy {
        Some(parameter) => format!("Set {parameter}, or have more clients in a round"),
        None => "Have more clients in a round".to_string(),
    };
    Some(format!(
        "the reducer needs a report of each of the {clients} of a round: if one of them fails, or an attacker sends a report that \
         is refused, the round fails. {remedy}"
    ))
}

/// Two bounds of norm clipping, of which one counts.
fn bounds(spec: &JobSpec) -> Option<String> {
    // As it was asked for: a complete strategy has all defaults.
    let asked = spec.strategy.settings();
    let multiplier = parameter_of_a_part(asked, "multiplier")?;
    parameter_of_a_part(asked, "bound")?;
    // Of a recorded run, which has the default.
    (multiplier != 1.0).then(|| {
        format!(
            "strategy.multiplier {} has no effect: strategy.bound says how long a report may be",
            setting(multiplier)
        )
    })
}

/// A number of the strategy, which may be in the table of its part.
fn parameter_of_a_part(asked: &Settings, name: &str) -> Option<f64> {
    let in_the_part = asked.get("reducer").and_then(|part| part.get(name));
    asked.get(name).or(in_the_part)?.as_f64()
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
mod tests;
