//! What the folded clients of a round measured: the means over all of them, and a bounded list by client. Clients say what they
//! like, so a value that is far from the others' is in no mean.

use std::collections::BTreeMap;

use crate::{
    ids::ClientId,
    protocol::{MeasuredClient, RoundRecord},
    report::ReportMetadata,
    round::Excluded,
    statistics::largest_plausible,
    words::amount,
};

/// How much of the clients' own metrics a round's record keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientMetricsLimit {
    /// The most clients that are listed.
    pub clients: usize,
    /// The most metrics of each of them, and the most means.
    pub metrics: usize,
    /// The longest name of a metric, in bytes; those with longer ones are left out.
    pub name: usize,
}

impl Default for ClientMetricsLimit {
    fn default() -> Self {
        Self {
            clients: 1000,
            metrics: 16,
            name: 64,
        }
    }
}

/// What the folded clients of a round measured while they trained. Whatever a limit cuts is counted.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct ClientMetrics {
    /// The mean of each metric over the clients that have it, weighted by their examples. If a limit cuts, the metrics
    /// that the most clients have are kept.
    pub means: BTreeMap<String, f64>,
    /// The values that are in no mean, since their magnitude is more than 100 times the median of the clients' (and than 100), in
    /// order of metrics and clients, each with the reason.
    pub not_counted: Vec<Excluded>,
    /// How many more metrics have no mean here.
    pub means_left_out: u64,
    /// The clients one by one, in order. If a limit cuts, the first clients are kept.
    pub clients: Vec<MeasuredClient>,
    /// How many more clients are not listed.
    pub clients_left_out: u64,
}

/// What clients say of one metric, each with its number of examples.
#[derive(Default)]
struct Spoken {
    clients: Vec<ClientId>,
    values: Vec<f64>,
    examples: Vec<f64>,
}

impl Spoken {
    fn add(&mut self, client: ClientId, value: f64, examples: u64) {
        self.clients.push(client);
        self.values.push(value);
        self.examples.push(examples as f64);
    }

    /// The mean of the plausible values, and the others. Not a number if all plausible ones have 0 examples.
    fn mean(&self, name: &str) -> (f64, Vec<Excluded>) {
        let most = largest_plausible(&self.values);
        let (mut sum, mut examples) = (0.0, 0.0);
        let mut not_counted = Vec::new();
        for ((client, value), weight) in self.clients.iter().zip(&self.values).zip(&self.examples) {
            if value.abs() > most {
                let reason = format!(
                    "its {name} of {} is far from the others': it is not in the mean",
                    amount(*value)
                );
                not_counted.push(Excluded {
                    client: *client,
                    reason,
                });
                continue;
            }
            sum += value * weight;
            examples += weight;
        }
        (sum / examples, not_counted)
    }
}

impl ClientMetrics {
    /// Of these folded reports, in client order.
    pub fn new<'a>(
        reports: impl IntoIterator<Item = (ClientId, &'a ReportMetadata)>,
        limit: ClientMetricsLimit,
    ) -> Self {
        let mut measured = Self::default();
        let mut spoken: BTreeMap<&str, Spoken> = BTreeMap::new();
        for (client, said) in reports {
            for (name, value) in &said.metrics {
                let of_all = spoken.entry(name).or_default();
                of_all.add(client, *value, said.examples);
            }
            if measured.clients.len() < limit.clients {
                let one = MeasuredClient::new(client, said, limit);
                measured.clients.push(one);
            } else {
                measured.clients_left_out += 1;
            }
        }
        let mut means: Vec<_> = spoken.into_iter().collect();
        // Stable: metrics that equally many clients have stay in the order of their names.
        means.sort_by_key(|(_, sum)| std::cmp::Reverse(sum.clients.len()));
        for (name, of_all) in means {
            let has_room = measured.means.len() < limit.metrics;
            if !has_room || name.len() > limit.name {
                measured.means_left_out += 1;
                continue;
            }
            let (mean, not_counted) = of_all.mean(name);
            let has_room = limit.clients.saturating_sub(measured.not_counted.len());
            measured
                .not_counted
                .extend(not_counted.into_iter().take(has_room));
            // JSON has no other numbers.
            if mean.is_finite() {
                measured.means.insert(name.to_string(), mean);
            } else {
                measured.means_left_out += 1;
            }
        }
        measured
    }

    /// The record with what the folded clients of its round measured.
    pub fn add_to(self, mut record: RoundRecord) -> RoundRecord {
        record.client_metrics = self.means;
        record.client_metrics_left_out = self.means_left_out;
        record.by_client = self.clients;
        record.clients_left_out = self.clients_left_out;
        record
    }
}

impl MeasuredClient {
    fn new(client: ClientId, said: &ReportMetadata, limit: ClientMetricsLimit) -> Self {
        let mut metrics = BTreeMap::new();
        for (name, value) in &said.metrics {
            if metrics.len() < limit.metrics && name.len() <= limit.name {
                metrics.insert(name.clone(), *value);
            }
        }
        Self {
            client,
            examples: said.examples,
            metrics_left_out: (said.metrics.len() - metrics.len()) as u64,
            metrics,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(examples: u64, metrics: &[(&str, f64)]) -> ReportMetadata {
        let mut said = ReportMetadata {
            examples,
            ..ReportMetadata::default()
        };
        for (name, value) in metrics {
            said.metrics.insert(name.to_string(), *value);
        }
        said
    }

    fn measured(reports: &[ReportMetadata], clients: usize, metrics: usize) -> ClientMetrics {
        let reports = (0..).map(ClientId).zip(reports);
        let limit = ClientMetricsLimit {
            clients,
            metrics,
            ..ClientMetricsLimit::default()
        };
        ClientMetrics::new(reports, limit)
    }

    #[test]
    fn a_mean_is_weighted_by_the_examples_of_those_that_have_the_metric() {
        let reports = [
            said(30, &[("loss", 1.0), ("mae", 4.0)]),
            said(10, &[("loss", 3.0)]),
            said(60, &[("mae", 1.0)]),
        ];
        let measured = measured(&reports, 1000, 16);
        let means: Vec<_> = measured.means.into_iter().collect();
        assert_eq!(means, [("loss".to_string(), 1.5), ("mae".to_string(), 2.0)]);
        assert_eq!(measured.clients.len(), 3);
        assert_eq!(measured.clients[1].metrics["loss"], 3.0);
        assert_eq!(measured.clients[2].examples, 60);
        assert_eq!((measured.clients_left_out, measured.means_left_out), (0, 0));
    }

    #[test]
    fn what_a_limit_cuts_is_counted_and_what_most_clients_have_stays() {
        let reports = [
            said(1, &[("a", 1.0), ("b", 1.0), ("z", 5.0)]),
            said(1, &[("z", 7.0)]),
            said(1, &[("z", 9.0)]),
        ];
        let measured = measured(&reports, 2, 2);
        let names: Vec<_> = measured.means.keys().collect();
        assert_eq!(names, ["a", "z"]);
        assert_eq!(measured.means["z"], 7.0);
        assert_eq!(measured.means_left_out, 1);
        assert_eq!((measured.clients.len(), measured.clients_left_out), (2, 1));
        let first = &measured.clients[0];
        assert_eq!((first.metrics.len(), first.metrics_left_out), (2, 1));
    }

    #[test]
    fn one_value_moves_no_mean_beyond_the_others_and_is_named() {
        let mut reports = Vec::new();
        for _ in 0..9 {
            reports.push(said(10, &[("loss", 0.5), ("errors", 0.0)]));
        }
        reports.push(said(10, &[("loss", -1e300), ("errors", 10.0)]));
        let measured = measured(&reports, 1000, 16);
        assert_eq!(
            (measured.means["loss"], measured.means["errors"]),
            (0.5, 1.0)
        );
        let expected = Excluded {
            client: ClientId(9),
            reason: "its loss of -1.000e300 is far from the others': it is not in the mean"
                .to_string(),
        };
        assert_eq!(measured.not_counted, [expected]);
        // What it said is in the list of clients all the same.
        assert_eq!(measured.clients[9].metrics["loss"], -1e300);
    }

    #[test]
    fn names_without_end_and_sums_beyond_counting_are_left_out() {
        let long = "x".repeat(65);
        let reports = [said(u64::MAX, &[(long.as_str(), 1.0), ("huge", f64::MAX)])];
        let measured = measured(&reports, 10, 10);
        assert!(measured.means.is_empty(), "{measured:?}");
        assert_eq!(measured.means_left_out, 2);
        assert_eq!(measured.clients[0].metrics_left_out, 1);
    }
}
