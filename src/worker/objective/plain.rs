//! The loss alone.

use std::collections::BTreeMap;

use super::{
    super::{TrainError, TrainTask},
    contract::{Correction, LocalObjective},
};
use crate::parameters::Parameters;

/// No correction, no payload, no state.
pub(super) struct Plain;

impl LocalObjective for Plain {
    fn begin(
        &self,
        _global: &Parameters,
        _task: &TrainTask,
        _state: &BTreeMap<String, Parameters>,
    ) -> Result<Correction, TrainError> {
        Ok(Correction::none())
    }
}
