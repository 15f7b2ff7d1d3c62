//! FedProx: Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020, <https://arxiv.org/abs/1812.06127>.

use std::collections::BTreeMap;

use super::ClientObjective;
use crate::objective::Objective;

/// Clients minimize their loss plus `mu / 2 * |w - w_t|^2`, which holds them near the global model. The coordinator averages as
/// FedAvg does.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Proximal {
    /// How strongly, at least 0; with 0 it is FedAvg.
    pub mu: f64,
}

impl Proximal {
    /// With this strength.
    pub fn new(mu: f64) -> Self {
        Self { mu }
    }
}

impl ClientObjective for Proximal {
    fn objective(&self, _: &BTreeMap<String, f64>) -> Objective {
        // Nothing is added with 0, and then any worker can do it.
        if self.mu == 0.0 {
            Objective::Plain
        } else {
            Objective::Proximal { mu: self.mu }
        }
    }
}
