//! FedProx: a client is held near the global model.

use std::collections::BTreeMap;

use super::{
    super::{TrainError, TrainTask},
    contract::{Correction, LocalObjective},
    values::check_factor,
};
use crate::parameters::Parameters;

/// Adds `mu / 2 * |w - w_t|^2` to the loss, so `mu * (w - w_t)` to its gradient, with `w_t` the global model: Li et al. 2020,
/// "Federated Optimization in Heterogeneous Networks", equation (2).
pub(super) struct Proximal {
    pub(super) mu: f64,
}

impl LocalObjective for Proximal {
    fn begin(
        &self,
        _global: &Parameters,
        _task: &TrainTask,
        _state: &BTreeMap<String, Parameters>,
    ) -> Result<Correction, TrainError> {
        check_factor("mu", self.mu)?;
        Ok(Correction::pull(self.mu))
    }
}
