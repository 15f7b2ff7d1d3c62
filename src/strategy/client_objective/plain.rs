//! The loss alone.

use std::collections::BTreeMap;

use super::ClientObjective;
use crate::objective::Objective;

/// Clients minimize their loss, and reports count by their weights: FedAvg.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Plain;

impl ClientObjective for Plain {
    fn objective(&self, _: &BTreeMap<String, f64>) -> Objective {
        Objective::Plain
    }
}
