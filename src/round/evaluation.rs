//! Measurements of a model version, and the versions that the workers are still measuring.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::{ClientId, ModelVersion, RoundId, Timestamp, WorkerId};

/// The most metrics of an evaluation, and the longest name of one, in bytes.
const MOST_METRICS: usize = 64;
const LONGEST_METRIC: usize = 64;

/// What a model does on test examples.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct Evaluation {
    /// Mean loss over the examples.
    pub loss: f64,
    /// Share of the examples that are classified correctly, from 0 to 1; left out if the model is no classifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Number of examples.
    pub examples: u64,
    /// Further measurements, by name: means over the examples, at most 64 of them; left out if there are none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
}

impl Evaluation {
    /// This mean loss over so many examples.
    pub fn new(loss: f64, examples: u64) -> Self {
        Self {
            loss,
            examples,
            ..Self::default()
        }
    }

    /// The same with the share of the examples that are classified correctly, from 0 to 1.
    pub fn with_accuracy(mut self, accuracy: f64) -> Self {
        self.accuracy = Some(accuracy);
        self
    }

    /// The same with one more measurement: a mean over the examples.
    pub fn with_metric(mut self, name: impl Into<String>, value: f64) -> Self {
        self.metrics.insert(name.into(), value);
        self
    }

    /// The mean over parts, weighted by examples, in the order given; `None` if there is no example. A part without
    /// examples counts for nothing, whatever it says. Accuracy and metrics are in the mean only if all other parts have
    /// them.
    pub fn mean<'a>(parts: impl IntoIterator<Item = &'a Evaluation>) -> Option<Evaluation> {
        let mut sum: Option<Evaluation> = None;
        for part in parts {
            if part.examples == 0 {
                continue;
            }
            let weight = part.examples as f64;
            let mut weighted = part.clone();
            weighted.loss *= weight;
            weighted.accuracy = part.accuracy.map(|accuracy| accuracy * weight);
            for value in weighted.metrics.values_mut() {
                *value *= weight;
            }
            sum = Some(match sum {
                None => weighted,
                Some(sum) => sum.plus(&weighted),
            });
        }
        let mut mean = sum?;
        let count = mean.examples as f64;
        mean.loss /= count;
        mean.accuracy = mean.accuracy.map(|accuracy| accuracy / count);
        for value in mean.metrics.values_mut() {
            *value /= count;
        }
        Some(mean)
    }

    /// Adds what both have.
    fn plus(mut self, other: &Evaluation) -> Self {
        self.loss += other.loss;
        self.examples = self.examples.saturating_add(other.examples);
        self.accuracy = match (self.accuracy, other.accuracy) {
            (Some(sum), Some(accuracy)) => Some(sum + accuracy),
            _ => None,
        };
        self.metrics
            .retain(|name, _| other.metrics.contains_key(name));
        for (name, sum) in &mut self.metrics {
            *sum += other.metrics[name];
        }
        self
    }

    /// Checks that every number is one that a model can have. A part without examples has no numbers, and passes.
    ///
    /// # Errors
    ///
    /// What is wrong, in words.
    pub(crate) fn checked(self) -> Result<Evaluation, String> {
        if self.examples == 0 {
            return Ok(self);
        }
        if !self.loss.is_finite() {
            return Err("the loss is not a finite number".to_string());
        }
        if let Some(accuracy) = self.accuracy
            && !(0.0..=1.0).contains(&accuracy)
        {
            return Err(format!(
                "the accuracy is {accuracy}, which is not from 0 to 1"
            ));
        }
        if self.metrics.len() > MOST_METRICS {
            let count = self.metrics.len();
            return Err(format!(
                "it has {count} metrics, and {MOST_METRICS} is the most"
            ));
        }
        for (name, value) in &self.metrics {
            if name.len() > LONGEST_METRIC {
                return Err(format!(
                    "the name of a metric has {} bytes, and {LONGEST_METRIC} is the most",
                    name.len()
                ));
            }
            if !value.is_finite() {
                return Err(format!("the metric {name:?} is not a finite number"));
            }
        }
        Ok(self)
    }
}

/// A version whose measurements are not all in.
#[derive(Debug)]
pub(super) struct Pending {
    pub version: ModelVersion,
    /// The round that made it.
    pub round: RoundId,
    /// Given up at this moment; none where the driver evaluates, who always answers.
    pub deadline: Option<Timestamp>,
    shares: BTreeMap<ClientId, Share>,
    /// The open shares whose client has a worker, by it: what is looked at when a worker asks for a task.
    ready: BTreeSet<(WorkerId, ClientId)>,
    open: usize,
    /// Why the mean can't be had any more.
    failed: Option<String>,
}

/// One client's part of the test split.
#[derive(Debug)]
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
            deadline: None,
            shares: BTreeMap::new(),
            ready: BTreeSet::new(),
            open: 0,
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
        let share = |number| Share {
            number,
            holder: None,
            measured: None,
        };
        let shares = clients
            .iter()
            .zip(0..)
            .map(|(client, number)| (*client, share(number)));
        Self {
            deadline: Some(deadline),
            open: clients.len(),
            shares: shares.collect(),
            ..Self::by_driver(version, round)
        }
    }

    /// Whether this client's share is still to be measured.
    pub fn is_open(&self, client: ClientId) -> bool {
        self.open_share(client).is_some()
    }

    /// The client's share that is still to be measured, counted from 0, and how many shares there are.
    pub fn open_share(&self, client: ClientId) -> Option<(u32, u32)> {
        match self.shares.get(&client) {
            Some(share) if share.measured.is_none() => {
                Some((share.number, self.shares.len() as u32))
            }
            _ => None,
        }
    }

    /// The open shares of this worker's clients, in order, as [`Pending::open_share`] gives them.
    pub fn ready(&self, worker: WorkerId) -> impl Iterator<Item = (ClientId, (u32, u32))> + '_ {
        let all_of_worker = (worker, ClientId(0))..=(worker, ClientId(u32::MAX));
        let ready = self.ready.range(all_of_worker);
        ready.filter_map(|(_, client)| Some((*client, self.open_share(*client)?)))
    }

    /// This worker acts for the client from now on, or nobody does.
    pub fn place(&mut self, client: ClientId, holder: Option<WorkerId>) {
        let Some(share) = self.shares.get_mut(&client) else {
            return;
        };
        if let Some(before) = std::mem::replace(&mut share.holder, holder) {
            self.ready.remove(&(before, client));
        }
        if let (None, Some(holder)) = (&share.measured, holder) {
            self.ready.insert((holder, client));
        }
    }

    /// Takes a share's measurements. A second time, nothing changes.
    pub fn take(&mut self, client: ClientId, evaluation: Result<Evaluation, String>) {
        let share = self.shares.get_mut(&client);
        let Some(share) = share.filter(|share| share.measured.is_none()) else {
            return;
        };
        match evaluation.and_then(Evaluation::checked) {
            Ok(evaluation) => {
                share.measured = Some(evaluation);
                self.open -= 1;
                if let Some(holder) = share.holder {
                    self.ready.remove(&(holder, client));
                }
            }
            Err(reason) => {
                let reason = format!("client {client} could not evaluate: {reason}");
                self.failed.get_or_insert(reason);
            }
        }
    }

    /// Whether there is nothing left to wait for: all shares are in, or one will never be.
    pub fn is_done(&self) -> bool {
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
                "{open} of {all} shares of the test split were not evaluated in time"
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
        mean.ok_or_else(|| "the test split has no examples".to_string())
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
        assert_eq!(pending.open_share(ClientId(2)), Some((2, 3)));
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
    fn examples_beyond_counting_are_no_panic() {
        let most = Evaluation::new(1.0, u64::MAX).with_accuracy(1.0);
        assert_eq!(Evaluation::mean([&most, &most]).unwrap().examples, u64::MAX);
    }

    #[test]
    fn with_nobody_to_ask_it_is_over_at_once() {
        assert!(pending(0).is_done() && pending(0).result().is_err());
    }

    #[test]
    fn a_metric_is_in_the_mean_if_all_parts_with_examples_have_it() {
        let first = Evaluation::new(1.0, 30)
            .with_accuracy(0.5)
            .with_metric("mae", 4.0)
            .with_metric("f1", 0.5);
        let second = Evaluation::new(1.0, 10).with_metric("mae", 8.0);
        let empty = Evaluation::new(f64::NAN, 0);
        let mean = Evaluation::mean([&empty, &first, &empty, &second]).unwrap();
        assert_eq!(mean, Evaluation::new(1.0, 40).with_metric("mae", 5.0));
        assert_eq!(Evaluation::mean([&empty]), None);
    }

    #[test]
    fn metrics_are_finite_and_bounded() {
        let good = Evaluation::new(1.0, 10).with_metric("mae", -3.0);
        assert_eq!(good.clone().checked(), Ok(good.clone()));
        let problem = |evaluation: Evaluation| evaluation.checked().unwrap_err();
        let diverged = good.clone().with_metric("mae", f64::NAN);
        assert_eq!(
            problem(diverged),
            "the metric \"mae\" is not a finite number"
        );
        let mut many = good.clone();
        for index in 0..MOST_METRICS {
            many.metrics.insert(format!("m{index}"), 1.0);
        }
        assert_eq!(problem(many), "it has 65 metrics, and 64 is the most");
        let long = good.with_metric("x".repeat(65), 1.0);
        assert_eq!(
            problem(long),
            "the name of a metric has 65 bytes, and 64 is the most"
        );
    }

    #[test]
    fn json_without_accuracy_or_metrics_is_read_and_written() {
        let old = r#"{"loss":0.5,"accuracy":0.75,"examples":3}"#;
        let read: Evaluation = serde_json::from_str(old).unwrap();
        assert_eq!(read, Evaluation::new(0.5, 3).with_accuracy(0.75));
        assert_eq!(serde_json::to_string(&read).unwrap(), old);
        let plain = r#"{"loss":0.5,"examples":3}"#;
        let read: Evaluation = serde_json::from_str(plain).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), plain);
    }
}
