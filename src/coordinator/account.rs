//! What the folded reports of a round say of their workers: who trained on what, and how fast.

use std::{collections::BTreeMap, sync::Arc};

use super::speed::Measured;
use crate::{
    ids::{ClientId, WorkerId},
    report::ReportMetadata,
    telemetry::{Contribution, contributions},
    transport::Registration,
};

/// A round's account.
pub(super) struct Account {
    pub contributions: Vec<Contribution>,
    /// What was measured of each worker.
    pub measured: BTreeMap<WorkerId, Measured>,
}

impl Account {
    /// Of these reports, in client order, each sent by the worker that `senders` names.
    pub fn new(
        reports: &[(ClientId, ReportMetadata)],
        senders: &BTreeMap<ClientId, (WorkerId, Arc<Registration>)>,
        local_epochs: u32,
    ) -> Self {
        let mut measured: BTreeMap<_, Measured> = BTreeMap::new();
        let sent = reports.iter().filter_map(|(client, said)| {
            let (worker, registration) = senders.get(client)?;
            measured
                .entry(*worker)
                .or_default()
                .add(said.examples, local_epochs, said.seconds);
            Some((*client, *worker, registration.name.as_str(), said))
        });
        let contributions = contributions(sent);
        Self {
            contributions,
            measured,
        }
    }
}
