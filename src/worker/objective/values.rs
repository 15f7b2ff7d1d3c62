//! Arithmetic on the trainable tensors of flat parameters.

use std::collections::BTreeMap;

use super::super::TrainError;
use crate::parameters::{Parameters, Role};

/// Parameters on the layout of `like` whose trainable values are `value(index)`; the others are zero.
pub(super) fn trainable(like: &Parameters, value: impl Fn(usize) -> f64) -> Parameters {
    let layout = like.layout().clone();
    let mut made = Parameters::zeros(layout.clone());
    let values = made.values_mut();
    for spec in layout.tensors() {
        if spec.role == Role::Trainable {
            for at in spec.range() {
                // In f64 until here: one rounding, whatever the formula.
                values[at] = value(at) as f32;
            }
        }
    }
    made
}

/// The state of this name, if it fits the model; else nothing, as in a client's first round.
pub(super) fn fitting<'a>(found: Option<&'a Parameters>, global: &Parameters) -> Option<&'a [f32]> {
    let found = found?;
    match found.layout().check_same(global.layout()) {
        Ok(()) => Some(found.values()),
        Err(_) => None,
    }
}

/// The name of a client's state: another one after each restart, so that the state before does not count.
pub(super) fn name_of(base: &str, restarts: u64) -> String {
    if restarts == 0 {
        base.to_string()
    } else {
        format!("{base}.{restarts}")
    }
}

/// Keeps a state, and drops what was kept before a restart.
pub(super) fn keep(
    state: &mut BTreeMap<String, Parameters>,
    base: &str,
    restarts: u64,
    values: Parameters,
) {
    let before = format!("{base}.");
    state.retain(|name, _| name != base && !name.starts_with(&before));
    state.insert(name_of(base, restarts), values);
}

/// The value at `at`, or zero if there is no such state yet.
pub(super) fn at(values: Option<&[f32]>, at: usize) -> f64 {
    values.map_or(0.0, |values| f64::from(values[at]))
}

/// Checks a factor that a task has.
pub(super) fn check_factor(name: &str, value: f64) -> Result<(), TrainError> {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    Err(TrainError::Task(format!(
        "objective.{name} must be a finite number of at least 0, not {value}"
    )))
}
