//! A round's record, and the comparison of two runs' event logs.

use crate::{
    ids::{ClientId, ModelVersion},
    protocol::{LoggedEvent, RoundRecord},
    round::JobEvent,
};

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
/// which may run beside the next round, come at the end.
pub fn canonical(log: &[LoggedEvent]) -> Vec<JobEvent> {
    let mut events: Vec<JobEvent> = Vec::new();
    let mut evaluations: Vec<JobEvent> = Vec::new();
    for LoggedEvent { event, .. } in log {
        match event {
            JobEvent::Waiting { .. }
            | JobEvent::Recovered { .. }
            | JobEvent::Paused
            | JobEvent::Unpaused
            | JobEvent::Leased { .. }
            | JobEvent::TaskIssued { .. }
            | JobEvent::WorkerPassedOver { .. }
            | JobEvent::WorkerReturned { .. }
            | JobEvent::DataResized { .. } => {}
            JobEvent::ClientFailed {
                round,
                client,
                reason,
                ..
            } => events.push(JobEvent::ClientFailed {
                round: *round,
                client: *client,
                // Which worker acted for a client depends on who was there and free.
                worker: None,
                reason: reason.clone(),
            }),
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

fn is_acceptance(event: &JobEvent) -> bool {
    matches!(event, JobEvent::ReportAccepted { .. })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{ids::RoundId, round::Excluded, telemetry::ClientMetrics};

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
        assert_eq!(records[0].lr, None);
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
        record.lr = Some(0.1);
        let said = crate::report::ReportMetadata {
            examples: 3,
            metrics: BTreeMap::from([("train_loss".to_string(), 0.25)]),
            ..Default::default()
        };
        let measured = ClientMetrics::new([(ClientId(2), &said)], Default::default());
        let record = measured.add_to(record);
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
