//! What the reports of a round say of their clients and workers, for the round's record and for dealing by speed.

use std::{collections::BTreeMap, sync::Arc};

use super::speed::Measured;
use crate::{
    ids::{ClientId, WorkerId},
    job::TrainingSettings,
    protocol::{Contribution, Registration},
    report::ReportMetadata,
    telemetry::{ClientMetrics, ClientMetricsLimit, contributions},
};

/// A round's account.
pub(super) struct RoundAccount {
    /// What the record of the round takes from it.
    pub said: Said,
    /// What was measured of each worker.
    pub measured: BTreeMap<WorkerId, Measured>,
}

/// What the reports say, for the record.
#[derive(Default)]
pub(super) struct Said {
    pub contributions: Vec<Contribution>,
    pub metrics: ClientMetrics,
    pub state_lost: Vec<ClientId>,
}

impl RoundAccount {
    /// Of a round's accepted reports, in client order, each sent by the worker that `senders` names. Contributions and
    /// metrics are of those that were folded.
    pub fn new(
        reports: &[(ClientId, ReportMetadata)],
        folded: &[ClientId],
        senders: &BTreeMap<ClientId, (WorkerId, Arc<Registration>)>,
        training: &TrainingSettings,
        limit: ClientMetricsLimit,
    ) -> Self {
        let mut measured: BTreeMap<_, Measured> = BTreeMap::new();
        let mut state_lost = Vec::new();
        let mut of_folded = Vec::new();
        let mut sent = Vec::new();
        for (client, said) in reports {
            if said.state_lost {
                state_lost.push(*client);
            }
            // If a strategy's list is out of order, this is wrong, and the machine abandons the round.
            let is_folded = folded.binary_search(client).is_ok();
            if is_folded {
                of_folded.push((*client, said));
            }
            // The roster may have forgotten the sender by the time its report was accepted.
            let Some((worker, registration)) = senders.get(client) else {
                continue;
            };
            let of_worker = measured.entry(*worker).or_default();
            // An excluded report took its time as well: the worker's speed is not the strategy's to judge.
            of_worker.add(training.examples_trained(said.examples), said.seconds);
            if is_folded {
                sent.push((*client, *worker, registration.name.as_str(), said));
            }
        }
        Self {
            said: Said {
                contributions: contributions(sent),
                metrics: ClientMetrics::new(of_folded, limit),
                state_lost,
            },
            measured,
        }
    }
}
