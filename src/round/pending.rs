//! Versions that the driver or the workers are still measuring.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{ClientEvaluation, Evaluation};
use crate::{
    ids::{ClientId, ModelVersion, RoundId, Timestamp, WorkerId},
    settings::EvalSplit,
};

/// The most clients whose own measurements an entry of the log has.
const MOST_BY_CLIENT: usize = 1000;

/// A version whose measurements are not all in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Pending {
    pub version: ModelVersion,
    /// The round that made it.
    pub round: RoundId,
    /// What it is measured on.
    #[serde(default)]
    pub split: EvalSplit,
    /// Given up at this moment; none if the driver evaluates, who always answers.
    pub deadline: Option<Timestamp>,
    shares: BTreeMap<ClientId, Share>,
    /// The open shares whose client has a worker, by it: what is looked at when a worker asks for a task.
    ready: BTreeSet<(WorkerId, ClientId)>,
    open: usize,
    /// Whether the shares are parts of one test split, which differ by one example at most.
    equal: bool,
    /// Why there will be no mean.
    failed: Option<String>,
}

/// One client's part of the test split.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Share {
    number: u32,
    /// The worker that acts for the client.
    holder: Option<WorkerId>,
    /// None as long as it is open.
    measured: Option<Evaluation>,
}

impl Pending {
    /// A version that the driver evaluates.
    pub fn by_driver(version: ModelVersion, round: RoundId) -> Self {
        Self {
            version,
            round,
            split: EvalSplit::Test,
            deadline: None,
            shares: BTreeMap::new(),
            ready: BTreeSet::new(),
            open: 0,
            equal: false,
            failed: None,
        }
    }

    /// A version that these clients, in rising order, evaluate a share of each, until the deadline.
    pub fn by_clients(
        version: ModelVersion,
        round: RoundId,
        clients: &[ClientId],
        deadline: Timestamp,
    ) -> Self {
        let mut shares = BTreeMap::new();
        for (client, number) in clients.iter().zip(0..) {
            let share = Share {
                number,
                holder: None,
                measured: None,
            };
            shares.insert(*client, share);
        }
        Self {
            deadline: Some(deadline),
            open: clients.len(),
            shares,
            ..Self::by_driver(version, round)
        }
    }

    /// The same, on this split.
    pub fn on(mut self, split: EvalSplit) -> Self {
        self.split = split;
        self
    }

    /// The same, with shares of one split: their sizes are checked against each other.
    pub fn of_one_split(mut self) -> Self {
        self.equal = true;
        self
    }

    /// Whether this client's share is still to be measured.
    pub fn is_open(&self, client: ClientId) -> bool {
        self.open_share(client).is_some()
    }

    /// The client's share that is still to be measured, counted from 0, and how many shares there are.
    pub fn open_share(&self, client: ClientId) -> Option<(u32, u32)> {
        match self.shares.get(&client) {
            Some(share) if share.measured.is_none() && self.equal => {
                Some((share.number, self.shares.len() as u32))
            }
            // Data of its own is its own alone: nobody else could evaluate another part of it.
            Some(share) if share.measured.is_none() => Some((0, 1)),
            _ => None,
        }
    }

    /// The open shares of this worker's clients, in order, as [`Pending::open_share`] gives them.
    pub fn ready(&self, worker: WorkerId) -> impl Iterator<Item = (ClientId, (u32, u32))> + '_ {
        let all_of_worker = (worker, ClientId(0))..=(worker, ClientId(u32::MAX));
        let ready = self.ready.range(all_of_worker);
        ready.filter_map(|(_, client)| Some((*client, self.open_share(*client)?)))
    }

    /// This worker acts for the client from now on, or no worker does.
    pub fn place(&mut self, client: ClientId, holder: Option<WorkerId>) {
        let Some(share) = self.shares.get_mut(&client) else {
            return;
        };
        if let Some(before) = std::mem::replace(&mut share.holder, holder) {
            self.ready.remove(&(before, client));
        }
        // A share that is in is not handed out again, whoever acts for its client now.
        if let (None, Some(holder)) = (&share.measured, holder) {
            self.ready.insert((holder, client));
        }
    }

    /// Takes a share's measurements. Those of a share that is in already change nothing.
    pub fn take(&mut self, client: ClientId, evaluation: Result<Evaluation, String>) {
        let size = self.size();
        let share = self.shares.get_mut(&client);
        let Some(share) = share.filter(|share| share.measured.is_none()) else {
            return;
        };
        // Checked before it counts: one NaN would make the mean of all shares NaN.
        let checked = evaluation.and_then(Evaluation::checked);
        // The mean is weighted by examples. A worker that claims a huge share would alone decide the result.
        match checked.and_then(|found| check_size(size, &found).map(|()| found)) {
            Ok(evaluation) => {
                share.measured = Some(evaluation);
                self.open -= 1;
                if let Some(holder) = share.holder {
                    self.ready.remove(&(holder, client));
                }
            }
            Err(reason) => {
                let reason = format!("client {client} could not evaluate: {reason}");
                // The first reason: those that follow are often its consequences.
                self.failed.get_or_insert(reason);
            }
        }
    }

    /// What each client measured on data of its own, in order; nothing if they share one split.
    pub fn by_client(&self) -> Vec<ClientEvaluation> {
        let mut measured = Vec::new();
        for (client, share) in &self.shares {
            if measured.len() == MOST_BY_CLIENT || self.equal {
                break;
            }
            if let Some(evaluation) = &share.measured
                && evaluation.examples > 0
            {
                measured.push(ClientEvaluation {
                    client: *client,
                    evaluation: evaluation.clone(),
                });
            }
        }
        measured
    }

    /// The number of examples of a share that is in, if all are about as large.
    fn size(&self) -> Option<u64> {
        if !self.equal {
            return None;
        }
        let done = self
            .shares
            .values()
            .find_map(|share| share.measured.as_ref());
        done.map(|evaluation| evaluation.examples)
    }

    /// Whether there is nothing left to wait for: all shares are in, or one will never be.
    pub fn is_done(&self) -> bool {
        // The driver answers by an event of its own, also if it fails.
        self.deadline.is_some() && (self.open == 0 || self.failed.is_some())
    }

    /// The mean of all shares, or why there is none: part of a test split is not comparable with the whole.
    pub fn result(&self) -> Result<Evaluation, String> {
        if let Some(reason) = &self.failed {
            return Err(reason.clone());
        }
        if self.open > 0 {
            let (open, all) = (self.open, self.shares.len());
            return Err(format!(
                "{open} of {all} shares of the {} split were not evaluated in time",
                self.split
            ));
        }
        if self.shares.is_empty() {
            return Err("no client has a live worker".to_string());
        }
        let done = self
            .shares
            .values()
            .filter_map(|share| share.measured.as_ref());
        let mean = Evaluation::mean(done);
        mean.ok_or_else(|| format!("the {} split has no examples", self.split))
    }
}

/// Checks a share's number of examples against that of another one.
fn check_size(other: Option<u64>, evaluation: &Evaluation) -> Result<(), String> {
    match other {
        Some(other) if evaluation.examples.abs_diff(other) > 1 => Err(format!(
            "its share has {} examples, and another one {other}: shares of one test split differ by one at most",
            evaluation.examples
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(clients: u32) -> Pending {
        let clients: Vec<_> = (0..clients).map(ClientId).collect();
        Pending::by_clients(ModelVersion(1), RoundId(1), &clients, Timestamp(9))
    }

    fn measured(loss: f64, accuracy: f64, examples: u64) -> Result<Evaluation, String> {
        Ok(Evaluation::new(loss, examples).with_accuracy(accuracy))
    }

    #[test]
    fn shares_are_weighted_by_their_examples_and_a_missing_one_spoils_the_mean() {
        let mut pending = pending(3);
        pending.take(ClientId(0), measured(1.0, 0.5, 30));
        pending.take(ClientId(1), measured(2.0, 1.0, 10));
        assert!(!pending.is_done() && pending.result().is_err());
        // Of data of its own.
        assert_eq!(pending.open_share(ClientId(2)), Some((0, 1)));
        let clients: Vec<_> = pending.by_client().iter().map(|part| part.client).collect();
        assert_eq!(clients, [ClientId(0), ClientId(1)]);
        // A share that has no example has no mean, and needs none.
        pending.take(ClientId(2), measured(f64::NAN, f64::NAN, 0));
        pending.take(ClientId(1), Err("again".to_string()));
        assert!(pending.is_done());
        assert_eq!(pending.result(), measured(1.25, 0.625, 40));
    }

    #[test]
    fn what_no_model_can_measure_ends_it_with_the_clients_name() {
        let values = [(f64::INFINITY, 0.5), (1.0, f64::NAN), (1.0, 1.5)];
        for (loss, accuracy) in values {
            let mut pending = pending(2);
            pending.take(ClientId(1), measured(loss, accuracy, 10));
            assert!(pending.is_done());
            assert!(
                pending
                    .result()
                    .unwrap_err()
                    .starts_with("client 1 could not evaluate")
            );
        }
    }

    #[test]
    fn shares_of_one_split_are_of_one_size() {
        let mut pending = pending(3).of_one_split();
        assert_eq!(pending.open_share(ClientId(2)), Some((2, 3)));
        assert!(pending.by_client().is_empty());
        pending.take(ClientId(0), measured(1.0, 0.5, 30));
        pending.take(ClientId(1), measured(1.0, 0.5, 31));
        assert!(!pending.is_done());
        pending.take(ClientId(2), measured(1.0, 0.5, 1_000_000));
        let reason = pending.result().unwrap_err();
        assert!(
            reason.contains("client 2") && reason.contains("1000000"),
            "{reason}"
        );
    }

    #[test]
    fn with_nobody_to_ask_it_is_over_at_once() {
        assert!(pending(0).is_done() && pending(0).result().is_err());
    }
}
