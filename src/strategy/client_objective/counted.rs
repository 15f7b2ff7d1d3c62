//! How much each report of a round counts.

use std::collections::BTreeMap;

use crate::{
    ids::ClientId,
    report::DELTA,
    strategy::{AggregateContext, Inputs},
};

/// Which reports of a round are folded, and how much each counts.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Counted {
    /// What is read of them. The first payload is `delta`, whose mean is the update.
    pub inputs: Inputs,
    /// The reports that are not folded, in client order, and why.
    pub excluded: Vec<(ClientId, String)>,
    /// The sum of the weights of those that are.
    pub total_weight: f64,
    /// Measurements for the round's record.
    pub metrics: BTreeMap<String, f64>,
}

impl Counted {
    /// All reports, each with its weight: `weights` is in client order.
    pub fn weighted(round: &AggregateContext<'_>, weights: Vec<f64>) -> Self {
        let clients = round.reports().iter().map(|report| report.client);
        Self::new(Inputs::new(DELTA, clients.zip(weights)))
    }

    /// These reports; none is excluded.
    pub fn new(inputs: Inputs) -> Self {
        Self {
            total_weight: inputs.total(),
            inputs,
            excluded: Vec::new(),
            metrics: BTreeMap::new(),
        }
    }

    /// Leaves out reports, each given by its place among those that are read, with the reason. The total weight becomes that of the
    /// rest.
    pub fn exclude(&mut self, reports: impl IntoIterator<Item = (usize, String)>) {
        let reasons: BTreeMap<_, _> = reports.into_iter().collect();
        let places = reasons.keys().copied().collect();
        let clients: Vec<_> = self.inputs.clients().collect();
        for (place, reason) in reasons {
            self.excluded.push((clients[place], reason));
        }
        self.excluded.sort_by_key(|(client, _)| *client);
        let before = self.inputs.total();
        self.inputs.remove(&places);
        if before != 0.0 {
            self.total_weight *= self.inputs.total() / before;
        }
    }
}
