//! Who trained on what in a round: the accepted reports that were folded, put together by worker and device.

use std::collections::BTreeMap;

use crate::{
    ids::{ClientId, WorkerId},
    protocol::Contribution,
    report::ReportMetadata,
};

/// Puts the folded reports together by worker and device, in that order. Each comes with the number and the name of the
/// worker that sent it, in client order.
pub fn contributions<'a>(
    reports: impl IntoIterator<Item = (ClientId, WorkerId, &'a str, &'a ReportMetadata)>,
) -> Vec<Contribution> {
    let mut grouped: BTreeMap<(WorkerId, Option<&str>), Contribution> = BTreeMap::new();
    for (client, worker, name, said) in reports {
        let group = grouped
            .entry((worker, said.device.as_deref()))
            .or_insert_with(|| Contribution {
                worker,
                name: name.to_string(),
                device: said.device.clone(),
                clients: Vec::new(),
                examples: 0,
                seconds: None,
                energy_joules: None,
            });
        group.clients.push(client);
        // Workers send these numbers.
        group.examples = group.examples.saturating_add(said.examples);
        group.seconds = sum([group.seconds, said.seconds]);
        group.energy_joules = sum([group.energy_joules, said.energy_joules]);
    }
    grouped.into_values().collect()
}

/// The sum of what was measured; none if nothing was.
pub(super) fn sum(measured: impl IntoIterator<Item = Option<f64>>) -> Option<f64> {
    measured
        .into_iter()
        .flatten()
        .reduce(|sum, value| sum + value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(device: &str, examples: u64, energy_joules: Option<f64>) -> ReportMetadata {
        ReportMetadata {
            examples,
            device: (!device.is_empty()).then(|| device.to_string()),
            seconds: (!device.is_empty()).then_some(0.5),
            energy_joules,
            ..ReportMetadata::default()
        }
    }

    #[test]
    fn reports_are_put_together_by_worker_and_device() {
        let reports = [
            (0, 2, "lab", said("libtorch:cuda:0", 10, Some(20.0))),
            (1, 1, "old", said("", 5, None)),
            (2, 2, "lab", said("libtorch:cuda:1", 10, Some(7.0))),
            (3, 2, "lab", said("libtorch:cuda:0", 30, None)),
            (4, 3, "laptop", said("flex", 2, None)),
            (5, 2, "lab", said("libtorch:cuda:0", 1, Some(1.5))),
        ];
        let reports = reports.iter().map(|(client, worker, name, said)| {
            (ClientId(*client), WorkerId(*worker), *name, said)
        });
        let found = contributions(reports);
        let line = |found: &Contribution| {
            let clients: Vec<_> = found.clients.iter().map(|client| client.0).collect();
            let device = found.device.clone().unwrap_or_default();
            (found.name.clone(), device, clients, found.examples)
        };
        let line_of = |name: &str, device: &str, clients: &[u32], examples| {
            (
                name.to_string(),
                device.to_string(),
                clients.to_vec(),
                examples,
            )
        };
        assert_eq!(
            found.iter().map(line).collect::<Vec<_>>(),
            [
                line_of("old", "", &[1], 5),
                line_of("lab", "libtorch:cuda:0", &[0, 3, 5], 41),
                line_of("lab", "libtorch:cuda:1", &[2], 10),
                line_of("laptop", "flex", &[4], 2),
            ]
        );
        let seconds: Vec<_> = found.iter().map(|found| found.seconds).collect();
        assert_eq!(seconds, [None, Some(1.5), Some(0.5), Some(0.5)]);
        let energy: Vec<_> = found.iter().map(|found| found.energy_joules).collect();
        assert_eq!(energy, [None, Some(21.5), Some(7.0), None]);
    }

    #[test]
    fn ten_thousand_clients_of_one_device_are_one_contribution() {
        let said = said("flex", 3, Some(0.25));
        let reports = (0..10_000).map(|client| (ClientId(client), WorkerId(1), "a", &said));
        let found = contributions(reports);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].examples, found[0].energy_joules),
            (30_000, Some(2500.0))
        );
    }
}
