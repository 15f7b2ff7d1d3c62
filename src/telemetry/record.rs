//! A round's record, and the comparison of two runs' event logs.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    ClientMetrics, Contribution, LoggedEvent, MeasuredClient, clients::is_zero, contribution::sum,
};
use crate::{
    ids::{ClientId, ModelVersion, RoundId},
    round::{Excluded, JobEvent},
};

/// One line of `rounds.jsonl`: a round that ended.
///
/// Of what can be missing, `abandoned` tells whether the round made a version. Lines of earlier versions of this crate,
/// which have `clients` instead of `accepted` and `folded`, are read as rounds without exclusions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(remote = "Self")]
#[non_exhaustive]
pub struct RoundRecord {
    /// The round.
    pub round: RoundId,
    /// The version that it made; none if it was abandoned.
    pub version: Option<ModelVersion>,
    /// Why it was abandoned; none if it made a version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abandoned: Option<String>,
    /// Mean loss of that version on the test split; none before it is evaluated.
    pub test_loss: Option<f64>,
    /// Accuracy of that version on the test split, from 0 to 1; none before it is evaluated, or if nobody measures it.
    pub test_accuracy: Option<f64>,
    /// What else was measured of that version on the test split.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub test_metrics: BTreeMap<String, f64>,
    /// Mean loss of the folded clients while they trained, weighted by examples; none unless each of them measured it.
    pub train_loss: Option<f64>,
    /// Seconds from the round's beginning to its end, without the evaluation of what it made.
    pub seconds: f64,
    /// Bytes of parameters that were sent and received for it.
    pub bytes: u64,
    /// The clients whose reports were accepted, in order.
    #[serde(default)]
    pub accepted: Vec<ClientId>,
    /// The clients whose reports are in the version, in order.
    #[serde(default, alias = "clients")]
    pub folded: Vec<ClientId>,
    /// The clients whose accepted reports the strategy left out, in order, each with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded: Vec<Excluded>,
    /// What the strategy measured while it aggregated.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
    /// The mean of each of the folded clients' own metrics, over those that have it, weighted by their examples. If a
    /// limit cuts, the metrics that the most clients have are kept.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub client_metrics: BTreeMap<String, f64>,
    /// How many more metrics have no mean here.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub client_metrics_left_out: u64,
    /// What the folded clients measured, one by one, in order. If a limit cuts, the first clients are kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_client: Vec<MeasuredClient>,
    /// How many more clients are not listed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub clients_left_out: u64,
    /// The clients that started from their initial state, since their worker did not have the state that their task named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub state_lost: Vec<ClientId>,
    /// Who trained on what, by worker and device; empty if the round was abandoned.
    #[serde(default)]
    pub contributions: Vec<Contribution>,
    /// Joules that the devices spent on the folded reports, as far as they were measured: at least this much was spent.
    /// None if no device was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy_joules: Option<f64>,
}

impl Serialize for RoundRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The inherent method, which the derive makes for `remote`.
        RoundRecord::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for RoundRecord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut record = RoundRecord::deserialize(deserializer)?;
        if record.accepted.is_empty() {
            // An old line: without exclusions, what was folded is what was accepted.
            record.accepted.clone_from(&record.folded);
        }
        Ok(record)
    }
}

impl RoundRecord {
    /// A round that made this version.
    pub fn committed(round: RoundId, version: ModelVersion) -> Self {
        Self {
            round,
            version: Some(version),
            ..Self::default()
        }
    }

    /// A round that made no version, and why.
    pub fn abandoned(round: RoundId, reason: impl Into<String>) -> Self {
        Self {
            round,
            abandoned: Some(reason.into()),
            ..Self::default()
        }
    }

    /// The same with who trained on what.
    pub fn with_contributions(mut self, contributions: Vec<Contribution>) -> Self {
        self.energy_joules = sum(contributions.iter().map(|part| part.energy_joules));
        self.contributions = contributions;
        self
    }

    /// The same with what the folded clients measured.
    pub fn with_client_metrics(mut self, measured: ClientMetrics) -> Self {
        self.client_metrics = measured.means;
        self.client_metrics_left_out = measured.means_left_out;
        self.by_client = measured.clients;
        self.clients_left_out = measured.clients_left_out;
        self
    }

    /// The round's length.
    pub fn duration(&self) -> Duration {
        Duration::try_from_secs_f64(self.seconds).unwrap_or_default()
    }
}

/// The records of a `rounds.jsonl`.
///
/// # Errors
///
/// The number of the line that is not a record, and why.
pub fn parse_rounds(text: &str) -> Result<Vec<RoundRecord>, (usize, String)> {
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            serde_json::from_str(line).map_err(|error| (index + 1, error.to_string()))
        })
        .collect()
}

/// What two runs of the same job must agree on, whatever their workers, threads and transports: the log without times
/// and without what depends on who was quicker. Within a round, acceptances are in client order; evaluations,
/// which may run beside the next round, stand at the end.
pub fn canonical(log: &[LoggedEvent]) -> Vec<JobEvent> {
    let mut events: Vec<JobEvent> = Vec::new();
    let mut evaluations: Vec<JobEvent> = Vec::new();
    for LoggedEvent { event, .. } in log {
        match event {
            JobEvent::Waiting { .. }
            | JobEvent::Leased { .. }
            | JobEvent::TaskIssued { .. }
            | JobEvent::WorkerPassedOver { .. } => {}
            JobEvent::ReportAccepted {
                round,
                client,
                examples,
                ..
            } => events.push(JobEvent::ReportAccepted {
                round: *round,
                client: *client,
                worker: Default::default(),
                examples: *examples,
            }),
            JobEvent::Evaluated { .. } => evaluations.push(event.clone()),
            _ => events.push(event.clone()),
        }
    }
    let is_acceptance = |event: &JobEvent| matches!(event, JobEvent::ReportAccepted { .. });
    for stretch in events.chunk_by_mut(|a, b| is_acceptance(a) && is_acceptance(b)) {
        stretch.sort_by_key(|event| match event {
            JobEvent::ReportAccepted { client, .. } => *client,
            _ => ClientId(0),
        });
    }
    evaluations.sort_by_key(|event| match event {
        JobEvent::Evaluated { version, .. } => *version,
        _ => ModelVersion(0),
    });
    events.extend(evaluations);
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_an_earlier_version_is_a_round_that_folded_all_it_accepted() {
        let text = concat!(
            r#"{"round":3,"version":2,"test_loss":0.5,"test_accuracy":0.9,"train_loss":null,"seconds":1.5,"bytes":9,"clients":[0,4],"contributions":[]}"#,
            "\n",
            r#"{"round":4,"version":null,"abandoned":"no report","test_loss":null,"test_accuracy":null,"train_loss":null,"seconds":1.0,"bytes":0,"clients":[]}"#,
        );
        let records = parse_rounds(text).unwrap();
        let both = vec![ClientId(0), ClientId(4)];
        assert_eq!((&records[0].accepted, &records[0].folded), (&both, &both));
        assert!(records[0].excluded.is_empty() && records[0].abandoned.is_none());
        assert_eq!(records[1].abandoned.as_deref(), Some("no report"));
        assert!(records[1].accepted.is_empty());
    }

    #[test]
    fn a_record_is_read_back_as_it_was_written() {
        let mut record = RoundRecord::committed(RoundId(7), ModelVersion(6));
        record.accepted = vec![ClientId(1), ClientId(2)];
        record.folded = vec![ClientId(2)];
        record.excluded = vec![Excluded {
            client: ClientId(1),
            reason: "too far from the median".to_string(),
        }];
        record.metrics.insert("norm".to_string(), 0.1 + 0.2);
        record.test_metrics.insert("f1".to_string(), 0.75);
        record.state_lost = vec![ClientId(2)];
        let said = crate::report::ReportMetadata {
            examples: 3,
            metrics: BTreeMap::from([("train_loss".to_string(), 0.25)]),
            ..Default::default()
        };
        let measured = ClientMetrics::new([(ClientId(2), &said)], Default::default());
        let record = record.with_client_metrics(measured);
        let empty_fold = RoundRecord::committed(RoundId(8), ModelVersion(7));
        let mut lost = RoundRecord::abandoned(RoundId(9), "the quorum");
        lost.accepted = vec![ClientId(3)];
        for record in [record, empty_fold, lost] {
            let line = serde_json::to_string(&record).unwrap();
            assert_eq!(parse_rounds(&line), Ok(vec![record]), "{line}");
        }
    }

    #[test]
    fn a_commit_in_a_log_of_an_earlier_version_is_read() {
        let text =
            r#"{"event":"round_committed","round":1,"version":1,"clients":[0,1],"train_loss":0.5}"#;
        let JobEvent::RoundCommitted { folded, .. } = serde_json::from_str(text).unwrap() else {
            panic!("not a commit");
        };
        assert_eq!(folded, [ClientId(0), ClientId(1)]);
    }
}
