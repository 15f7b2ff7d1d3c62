//! SCAFFOLD: control variates correct the drift of clients whose data differs.

use std::collections::BTreeMap;

use super::{
    super::{PayloadValues, TrainError, TrainTask},
    contract::{Correction, LocalObjective, Trained},
    values::{at, fitting, keep, name_of, trainable},
};
use crate::parameters::Parameters;

/// The payload, and the name of the client's state.
pub(in crate::worker) const CONTROL: &str = "control";

/// Karimireddy et al. 2020, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", option II of algorithm 1.
///
/// - The version's payload `control` is the server's `c`. The client's `c_i` is its state `control`, at first zeros.
/// - Each step's gradient gets `c - c_i`.
/// - After `K` steps at learning rate `lr`, from `x` to `y`: `c_i+ = c_i - c + (x - y) / (R * lr)`. The report's payload
///   `control` is `c_i+ - c_i`.
///
/// `R` is [`reach`](crate::settings::TrainingSettings::reach): `K` for plain SGD, which the paper has. With momentum, `K` steps go
/// further, and a division by `K` would make `c_i` too large by as much: at a momentum of 0.9 training then diverges.
pub(super) struct Scaffold {
    /// How often all controls were set back to zero.
    pub(super) restarts: u64,
}

impl LocalObjective for Scaffold {
    fn begin(
        &self,
        global: &Parameters,
        task: &TrainTask,
        state: &BTreeMap<String, Parameters>,
    ) -> Result<Correction, TrainError> {
        // Before training, not after it: what is divided by is known now.
        let reaches = task.training.check_reach();
        reaches.map_err(|problem| TrainError::Task(format!("objective scaffold: {problem}")))?;
        if task.training.lr <= 0.0 {
            return Err(TrainError::Task(format!(
                "objective scaffold divides by training.lr, which must be above 0, not {}",
                task.training.lr
            )));
        }
        let server = server_control(global, task)?;
        let own = fitting(state.get(&name_of(CONTROL, self.restarts)), global);
        let shift = trainable(global, |index| f64::from(server[index]) - at(own, index));
        if shift.values().iter().all(|value| *value == 0.0) {
            return Ok(Correction::none());
        }
        Ok(Correction::none().with_shift(shift))
    }

    fn end(
        &self,
        trained: &Trained<'_>,
        state: &mut BTreeMap<String, Parameters>,
    ) -> Result<BTreeMap<String, PayloadValues>, TrainError> {
        let (global, task) = (trained.global, trained.task);
        let server = server_control(global, task)?;
        let own = fitting(state.get(&name_of(CONTROL, self.restarts)), global);
        let travelled = task.training.reach(trained.steps) * task.training.lr;
        let (x, y) = (global.values(), trained.local.values());
        let change = trainable(global, |index| {
            // A client without examples takes no step, and learns nothing of its gradient.
            if trained.steps == 0 {
                return 0.0;
            }
            let gradient = (f64::from(x[index]) - f64::from(y[index])) / travelled;
            gradient - f64::from(server[index])
        });
        // From the change as it is sent: the server's mean of the clients' controls is then what they have.
        let next = trainable(global, |index| {
            at(own, index) + f64::from(change.values()[index])
        });
        keep(state, CONTROL, self.restarts, next);
        let change = PayloadValues::Model(change);
        Ok(BTreeMap::from([(CONTROL.to_string(), change)]))
    }
}

/// The server's control variate, which comes with the version.
fn server_control<'a>(global: &Parameters, task: &'a TrainTask) -> Result<&'a [f32], TrainError> {
    let Some(control) = task.payloads.get(CONTROL) else {
        return Err(TrainError::Task(
            "objective scaffold needs the payload \"control\" of the version, which the plan does not send".to_string(),
        ));
    };
    let same = control.layout().check_same(global.layout());
    same.map_err(|error| TrainError::Task(format!("payload \"control\": {error}")))?;
    Ok(control.values())
}
