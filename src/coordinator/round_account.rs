//! What the reports of a round say of their clients and workers, for the round's record and for dealing by speed.

use std::{collections::BTreeMap, sync::Arc};

use super::speed::{Measured, SpeedBounds};
use crate::{
    ids::{ClientId, WorkerId},
    protocol::{Contribution, Registration},
    report::ReportMetadata,
    round::Excluded,
    strategy::RoundPlan,
    telemetry::{ClientMetrics, ClientMetricsLimit, contributions},
    words::amount,
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
    pub not_counted: Vec<Excluded>,
}

impl Said {
    /// What the folded reports cost, as far as devices were measured.
    pub fn joules(&self) -> f64 {
        let measured = self.contributions.iter();
        measured.filter_map(|part| part.energy_joules).sum()
    }
}

/// What the coordinator noted when the reports came.
pub(super) struct Sent {
    /// Who sent them.
    pub senders: BTreeMap<ClientId, (WorkerId, Arc<Registration>)>,
    /// What they say and does not count.
    pub not_counted: BTreeMap<ClientId, Vec<String>>,
}

/// By what the account is made.
pub(super) struct AccountRules<'a> {
    pub plan: &'a RoundPlan,
    pub metrics: ClientMetricsLimit,
    /// How far from the median a speed counts, if the job uses speeds.
    pub spread: Option<f64>,
}

impl RoundAccount {
    /// Of a round's accepted reports, in client order. Contributions and metrics are of those that were folded.
    pub fn new(
        reports: &[(ClientId, ReportMetadata)],
        folded: &[ClientId],
        sent: &Sent,
        rules: &AccountRules<'_>,
    ) -> Self {
        let mut measured: BTreeMap<_, Measured> = BTreeMap::new();
        let mut state_lost = Vec::new();
        let mut of_folded = Vec::new();
        let mut contributing = Vec::new();
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
            let Some((worker, registration)) = sent.senders.get(client) else {
                continue;
            };
            let of_worker = measured.entry(*worker).or_default();
            let training = rules.plan.training_of(*client);
            // An excluded report took its time as well: the worker's speed is not the strategy's to judge.
            of_worker.add(training.examples_trained(said.examples), said.seconds);
            if is_folded {
                contributing.push((*client, *worker, registration.name.as_str(), said));
            }
        }
        let metrics = ClientMetrics::new(of_folded, rules.metrics);
        let odd_speeds = odd_speeds(&measured, rules.spread);
        let mut notes = Vec::new();
        for (client, _) in reports {
            let claims = sent.not_counted.get(client).into_iter().flatten();
            let worker = sent.senders.get(client).map(|(worker, _)| worker);
            let speed = worker.and_then(|worker| odd_speeds.get(worker));
            for reason in claims.chain(speed) {
                notes.push(Excluded {
                    client: *client,
                    reason: reason.clone(),
                });
            }
        }
        notes.extend(metrics.not_counted.iter().cloned());
        // Stable: of each client, what was noted first stays first.
        notes.sort_by_key(|note| note.client);
        notes.truncate(rules.metrics.clients);
        Self {
            said: Said {
                contributions: contributions(contributing),
                metrics,
                state_lost,
                not_counted: notes,
            },
            measured,
        }
    }
}

/// The workers of a round whose speeds don't count as they are, and why.
fn odd_speeds(
    measured: &BTreeMap<WorkerId, Measured>,
    spread: Option<f64>,
) -> BTreeMap<WorkerId, String> {
    let mut odd = BTreeMap::new();
    let Some(spread) = spread else {
        return odd;
    };
    let mut speeds = BTreeMap::new();
    for (worker, measured) in measured {
        if let Some(speed) = measured.speed() {
            speeds.insert(*worker, speed);
        }
    }
    let bounds = SpeedBounds::new(speeds.values().copied(), spread);
    for (worker, speed) in speeds {
        let counts = bounds.hold(speed);
        if counts != speed {
            let reason = format!(
                "its worker's speed of {} examples a second is more than {spread} times from the round's median of {}: it counts as {}",
                amount(speed),
                amount(bounds.median()),
                amount(counts)
            );
            odd.insert(worker, reason);
        }
    }
    odd
}
