//! FedDyn: each client's loss is changed so that the optimum of the clients is that of all of them together.

use std::collections::BTreeMap;

use super::{
    super::{PayloadValues, TrainError, TrainTask},
    contract::{Correction, LocalObjective, Trained},
    values::{at, check_factor, fitting, keep, name_of, trainable},
};
use crate::parameters::Parameters;

/// The name of the client's state.
pub(super) const GRADIENT: &str = "feddyn.gradient";

/// Acar et al. 2021, "Federated Learning Based on Dynamic Regularization", algorithm 1. The client's `g_i` is at first zeros.
///
/// - Each step's gradient gets `-g_i + alpha * (w - w_t)`, with `w_t` the global model.
/// - After the last step, at `w_i`: `g_i+ = g_i - alpha * (w_i - w_t)`.
pub(super) struct FedDyn {
    pub(super) alpha: f64,
    /// How often all `g_i` were set back to zero.
    pub(super) restarts: u64,
}

impl LocalObjective for FedDyn {
    fn begin(
        &self,
        global: &Parameters,
        _task: &TrainTask,
        state: &BTreeMap<String, Parameters>,
    ) -> Result<Correction, TrainError> {
        check_factor("alpha", self.alpha)?;
        let correction = Correction::pull(self.alpha);
        Ok(
            match fitting(state.get(&name_of(GRADIENT, self.restarts)), global) {
                Some(own) => {
                    correction.with_shift(trainable(global, |index| -f64::from(own[index])))
                }
                None => correction,
            },
        )
    }

    fn end(
        &self,
        trained: &Trained<'_>,
        state: &mut BTreeMap<String, Parameters>,
    ) -> Result<BTreeMap<String, PayloadValues>, TrainError> {
        let global = trained.global;
        let own = fitting(state.get(&name_of(GRADIENT, self.restarts)), global);
        let (start, end) = (global.values(), trained.local.values());
        let next = trainable(global, |index| {
            at(own, index) - self.alpha * (f64::from(end[index]) - f64::from(start[index]))
        });
        keep(state, GRADIENT, self.restarts, next);
        Ok(BTreeMap::new())
    }
}
