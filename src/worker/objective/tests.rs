//! Objectives on flat parameters; `burn_trainer/tests/local_training.rs` has them in a training.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    super::{Partition, PayloadValues, TrainError, TrainTask},
    *,
};
use crate::{
    ids::{ClientId, RoundId},
    objective::Objective,
    parameters::{Layout, Parameters, Role},
};

type State = BTreeMap<String, Parameters>;

fn parameters(values: [f32; 4]) -> Parameters {
    let layout = Layout::new([
        ("a".to_string(), vec![2], Role::Trainable),
        ("b.running_mean".to_string(), vec![1], Role::Buffer),
        ("c".to_string(), vec![1], Role::Frozen),
    ]);
    Parameters::new(layout.unwrap(), values.to_vec()).unwrap()
}

fn task(objective: Objective) -> TrainTask {
    let mut task = TrainTask::new(RoundId(1), ClientId(0), Partition::Everything);
    task.objective = objective;
    task.training.lr = 0.5;
    task
}

fn scaffold(server: [f32; 4]) -> TrainTask {
    let mut task = task(Objective::Scaffold { restarts: 0 });
    // As in the paper: the way is then as long as there are steps.
    task.training.momentum = 0.0;
    let control = Arc::new(parameters(server));
    task.payloads.insert(CONTROL.to_string(), control);
    task
}

fn begin(task: &TrainTask, global: &Parameters, state: &State) -> Result<Correction, TrainError> {
    let objective = Objectives::default().find(&task.objective)?;
    objective.begin(global, task, state)
}

fn end(task: &TrainTask, from: [f32; 4], to: [f32; 4], steps: u64, state: &mut State) -> State {
    let (global, local) = (parameters(from), parameters(to));
    let objective = Objectives::default().find(&task.objective).unwrap();
    let trained = Trained::new(task, &global, &local, steps);
    let payloads = objective.end(&trained, state).unwrap();
    let models = payloads.into_iter().map(|(name, values)| match values {
        PayloadValues::Model(values) => (name, values),
        other => panic!("{other:?}"),
    });
    models.collect()
}

#[test]
fn buffers_and_frozen_tensors_have_no_control() {
    let task = scaffold([1.0, 2.0, 9.0, 9.0]);
    let global = parameters([5.0, 5.0, 5.0, 5.0]);
    let mut state = State::new();
    let correction = begin(&task, &global, &state).unwrap();
    assert_eq!(correction.shift.unwrap().values(), [1.0, 2.0, 0.0, 0.0]);
    // (x - y) / (4 * 0.5) - c
    let sent = end(&task, [5.0; 4], [1.0, 5.0, 1.0, 1.0], 4, &mut state);
    assert_eq!(sent[CONTROL].values(), [1.0, -2.0, 0.0, 0.0]);
    assert_eq!(state[CONTROL].values(), [1.0, -2.0, 0.0, 0.0]);
    let correction = begin(&task, &global, &state).unwrap();
    assert_eq!(correction.shift.unwrap().values(), [0.0, 4.0, 0.0, 0.0]);
}

#[test]
fn after_a_restart_a_client_starts_from_zeros_and_drops_its_state() {
    let mut task = scaffold([1.0, 2.0, 9.0, 9.0]);
    task.training.momentum = 0.0;
    let global = parameters([5.0; 4]);
    let mut state = State::new();
    end(&task, [5.0; 4], [1.0; 4], 4, &mut state);
    task.objective = Objective::Scaffold { restarts: 1 };
    let correction = begin(&task, &global, &state).unwrap();
    assert_eq!(correction.shift.unwrap().values(), [1.0, 2.0, 0.0, 0.0]);
    end(&task, [5.0; 4], [1.0; 4], 4, &mut state);
    assert!(state.keys().eq(["control.1"]), "{:?}", state.keys());
    let mut task = task.clone();
    task.objective = Objective::FedDyn {
        alpha: 0.5,
        restarts: 3,
    };
    end(&task, [5.0; 4], [1.0; 4], 4, &mut state);
    assert_eq!(state["feddyn.gradient.3"].values(), [2.0, 2.0, 0.0, 0.0]);
}

#[test]
fn scaffold_without_steps_or_without_a_rate_is_no_division_by_zero() {
    let mut task = scaffold([1.0; 4]);
    let mut state = State::from([(CONTROL.to_string(), parameters([3.0, 4.0, 0.0, 0.0]))]);
    let sent = end(&task, [5.0; 4], [5.0; 4], 0, &mut state);
    assert_eq!(sent[CONTROL].values(), [0.0; 4]);
    assert_eq!(state[CONTROL].values(), [3.0, 4.0, 0.0, 0.0]);
    task.training.lr = 0.0;
    let error = begin(&task, &parameters([0.0; 4]), &state).unwrap_err();
    assert!(error.to_string().contains("training.lr"), "{error}");
}

#[test]
fn scaffold_needs_the_servers_control_on_the_models_layout() {
    let global = parameters([0.0; 4]);
    let mut task = task(Objective::Scaffold { restarts: 0 });
    let error = begin(&task, &global, &State::new()).unwrap_err();
    assert!(error.to_string().contains("\"control\""), "{error}");
    let other = Layout::new([("a".to_string(), vec![3], Role::Trainable)]).unwrap();
    let control = Arc::new(Parameters::zeros(other));
    task.payloads.insert(CONTROL.to_string(), control);
    let error = begin(&task, &global, &State::new()).unwrap_err();
    assert!(error.to_string().contains("\"control\""), "{error}");
}

#[test]
fn a_factor_out_of_range_is_named() {
    let global = parameters([0.0; 4]);
    for value in [-1.0, f64::NAN, f64::INFINITY] {
        for (objective, name) in [
            (Objective::Proximal { mu: value }, "objective.mu"),
            (
                Objective::FedDyn {
                    alpha: value,
                    restarts: 0,
                },
                "objective.alpha",
            ),
        ] {
            let error = begin(&task(objective), &global, &State::new()).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}

#[test]
fn an_objective_of_ones_own_is_found_and_an_unknown_one_is_told() {
    struct Own;
    impl LocalObjective for Own {
        fn begin(
            &self,
            _global: &Parameters,
            _task: &TrainTask,
            _state: &State,
        ) -> Result<Correction, TrainError> {
            Ok(Correction::pull(7.0))
        }
    }
    let custom = |name: &str| {
        task(Objective::Custom {
            name: name.to_string(),
            settings: Default::default(),
        })
    };
    let objectives = Objectives::default().with("own", Own);
    let found = objectives.find(&custom("own").objective).unwrap();
    let correction = found.begin(&parameters([0.0; 4]), &custom("own"), &State::new());
    assert_eq!(correction.unwrap(), Correction::pull(7.0));
    let Err(error) = objectives.find(&custom("other").objective) else {
        panic!("it is not known");
    };
    assert_eq!(
        error.to_string(),
        "the task does not fit: no objective \"other\" is known here; known are plain, feddyn, proximal, scaffold, own"
    );
    let capabilities: Vec<_> = objectives.capabilities().collect();
    for name in ["proximal", "scaffold", "feddyn", "own"] {
        assert!(capabilities.contains(&format!("objective:{name}")));
    }
    assert!(capabilities.contains(&"payload:control".to_string()));
}
