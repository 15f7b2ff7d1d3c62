//! The JSON forms that are the protocol's alone, and the names of its headers. All other forms are the message types
//! themselves.

use serde::{Deserialize, Serialize};

use crate::{round::Evaluation, transport::TaskMessage};

/// What all paths begin with.
pub(super) const BASE: &str = "/api/v1";
/// The worker that asks, on routes whose path doesn't name it.
pub(super) const WORKER_HEADER: &str = "fedavg-worker";
/// [`crate::report::ReportMetadata`] as JSON, beside the body of a report.
pub(super) const REPORT_HEADER: &str = "fedavg-report";
/// A body's [`crate::parameters::Digest`].
pub(super) const DIGEST_HEADER: &str = "fedavg-digest";
/// [`crate::job::JobSpec`] as JSON, beside an initial model.
pub(super) const JOB_HEADER: &str = "fedavg-job";
/// The version of the model in the body.
pub(super) const VERSION_HEADER: &str = "fedavg-model-version";
/// The media type of parameters.
pub(super) const SAFETENSORS: &str = "application/octet-stream";

/// A heartbeat.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub(super) struct Heartbeat {
    /// The tasks that are being worked on.
    #[serde(default)]
    pub busy: Vec<TaskMessage>,
}

/// The answer to a heartbeat.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub(super) struct Alive {
    /// Those of the tasks that are not wanted any more.
    #[serde(default)]
    pub unwanted: Vec<TaskMessage>,
}

/// A worker asks for a task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub(super) struct Poll {
    /// The tasks that are being worked on, which are not wanted again.
    #[serde(default)]
    pub busy: Vec<TaskMessage>,
    /// How long to wait at most, in milliseconds; without it, as long as the coordinator allows.
    #[serde(default)]
    pub wait_ms: Option<u64>,
}

/// A client can't do its training task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub(super) struct Failure {
    /// Why.
    pub reason: String,
}

/// What came of the evaluation of a share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ShareEvaluation {
    /// The measurements.
    Evaluation(Evaluation),
    /// Why there are none.
    Failed(String),
}

impl From<Result<Evaluation, String>> for ShareEvaluation {
    fn from(evaluation: Result<Evaluation, String>) -> Self {
        match evaluation {
            // JSON has no form for them.
            Ok(found) if !is_finite(&found) => Self::Failed(
                "the loss, the accuracy or a metric is not a finite number".to_string(),
            ),
            Ok(found) => Self::Evaluation(found),
            Err(reason) => Self::Failed(reason),
        }
    }
}

fn is_finite(evaluation: &Evaluation) -> bool {
    let values = evaluation.metrics.values().chain(&evaluation.accuracy);
    evaluation.loss.is_finite() && values.copied().all(f64::is_finite)
}

impl From<ShareEvaluation> for Result<Evaluation, String> {
    fn from(form: ShareEvaluation) -> Self {
        match form {
            ShareEvaluation::Evaluation(evaluation) => Ok(evaluation),
            ShareEvaluation::Failed(reason) => Err(reason),
        }
    }
}

/// JSON that can stand in a header: ASCII alone.
pub(super) fn ascii_json<T: Serialize>(value: &T) -> Result<String, serde_json::Error> {
    let text = serde_json::to_string(value)?;
    if text.is_ascii() {
        return Ok(text);
    }
    let mut ascii = String::with_capacity(text.len());
    for unit in text.encode_utf16() {
        match u8::try_from(unit) {
            Ok(byte) if byte.is_ascii() => ascii.push(char::from(byte)),
            _ => ascii.push_str(&format!("\\u{unit:04x}")),
        }
    }
    Ok(ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_in_a_header_reads_back_whatever_its_characters() {
        let text = "déjà \u{1F600} \"quoted\" \n";
        let header = ascii_json(&text).unwrap();
        assert!(header.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
        assert_eq!(serde_json::from_str::<String>(&header).unwrap(), text);
    }

    #[test]
    fn an_evaluation_is_one_of_two_forms() {
        let read = |text| Result::from(serde_json::from_str::<ShareEvaluation>(text).unwrap());
        let evaluation = Evaluation::new(0.5, 3).with_accuracy(1.0);
        assert_eq!(
            read(r#"{"evaluation":{"loss":0.5,"accuracy":1,"examples":3}}"#),
            Ok(evaluation.clone())
        );
        let regression = r#"{"evaluation":{"loss":0.5,"examples":3,"metrics":{"mae":2.5}}}"#;
        let expected = Evaluation::new(0.5, 3).with_metric("mae", 2.5);
        assert_eq!(read(regression), Ok(expected));
        assert_eq!(read(r#"{"failed":"no"}"#), Err("no".to_string()));
        let diverged = [
            Evaluation::new(f64::NAN, 3),
            evaluation.clone().with_accuracy(f64::NAN),
            evaluation.with_metric("mae", f64::INFINITY),
        ];
        for diverged in diverged {
            assert!(matches!(
                ShareEvaluation::from(Ok(diverged)),
                ShareEvaluation::Failed(_)
            ));
        }
    }
}
