//! What a worker is asked to do, and what it answers.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{ClientId, JobId, ModelVersion, RoundId},
    job::JobDescription,
    objective::Objective,
    parameters::PayloadSpec,
    round::{Evaluation, LOSS_NOT_FINITE},
    settings::{EvalSplit, TrainingSettings},
};

/// A task on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct TaskMessage {
    /// The job.
    pub job: JobId,
    /// The round; for an evaluation, the round that made the version.
    pub round: RoundId,
    /// The client to act for.
    pub client: ClientId,
    /// The version to start from, or to evaluate.
    pub version: ModelVersion,
    /// What to do.
    #[serde(flatten)]
    pub work: TaskWork,
    /// The jobs that run at this moment: what a worker keeps of others is of no use any more. Left out in what a worker says
    /// that it is busy with, and by coordinators with one job at a time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub running: Vec<JobId>,
    /// The jobs whose clients' states are to be kept, although they may have ended: another job may go on from them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<JobId>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum TaskWork {
    /// Train on the client's partition, then report.
    Train {
        /// How.
        training: TrainingSettings,
        /// Milliseconds from the sending of this message to the round's deadline.
        remaining_ms: u64,
        /// The generation of the client's partition. A partition that was read for an earlier one is to be read again;
        /// left out if it is 0, as it is unless the data is dealt again between rounds.
        #[serde(default, skip_serializing_if = "is_zero")]
        generation: u64,
        /// The last round whose commit folded this client's report; left out if none has. A worker that keeps state of the
        /// client between rounds takes the state that its report of that round led to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        basis: Option<RoundId>,
        /// The payloads of the model version that the training needs beside the model, by name.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        sends: Vec<String>,
        /// The payloads that the report must have; empty: `delta` alone, in f32.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        expects: Vec<PayloadSpec>,
        /// What the client minimizes beside its loss; left out if it is the loss alone. A worker is sent only what it
        /// named among its capabilities.
        #[serde(default, skip_serializing_if = "Objective::is_plain")]
        objective: Objective,
    },
    /// Evaluate a share of a split, then say so.
    Evaluate {
        /// Which share, from 0.
        share: u32,
        /// How many equal shares there are: share `i` of `n` examples is `n * i / shares .. n * (i + 1) / shares`.
        #[serde(deserialize_with = "at_least_one")]
        #[cfg_attr(feature = "http", schema(minimum = 1))]
        shares: u32,
        /// The split; left out if it is the test split. A worker is sent another one only if it named `evaluation:validation` among
        /// its capabilities.
        #[serde(default, skip_serializing_if = "EvalSplit::is_test")]
        split: EvalSplit,
        /// In a job with personal tensors: the last round whose commit folded this client's report, left out if none has. The
        /// client is evaluated with the personal tensors that its report of that round led to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        basis: Option<RoundId>,
    },
}

/// Nobody can evaluate one of no shares.
fn at_least_one<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let number = u32::deserialize(deserializer)?;
    if number == 0 {
        let problem = "shares is 0, and must be 1 or more";
        return Err(serde::de::Error::custom(problem));
    }
    Ok(number)
}

/// A job on its way to a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct JobMessage {
    /// The job.
    pub job: JobId,
    /// What a worker needs to know of it.
    pub spec: JobDescription,
    /// Whether the model has frozen tensors, which are not sent with each version: a worker fetches them once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub frozen: bool,
    /// The job under which the clients' states are kept, if it is another one: this job goes on from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub states_of: Option<JobId>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A heartbeat.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct Heartbeat {
    /// The tasks that are being worked on.
    #[serde(default)]
    pub busy: Vec<TaskMessage>,
}

/// The answer to a heartbeat.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct Alive {
    /// Those of the tasks that are not wanted any more.
    #[serde(default)]
    pub unwanted: Vec<TaskMessage>,
}

/// A worker asks for a task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct Poll {
    /// The tasks that are being worked on, which are not wanted again.
    #[serde(default)]
    pub busy: Vec<TaskMessage>,
    /// How long to wait at most, in milliseconds; without it, as long as the coordinator allows.
    #[serde(default)]
    pub wait_ms: Option<u64>,
}

/// A client can't do its training task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct Failure {
    /// Why.
    pub reason: String,
}

/// What came of the evaluation of a share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ShareEvaluation {
    /// The measurements.
    Evaluation(Evaluation),
    /// Why there are none.
    Failed(String),
}

impl From<Result<Evaluation, String>> for ShareEvaluation {
    fn from(evaluation: Result<Evaluation, String>) -> Self {
        match evaluation {
            // JSON has no form for NaN and infinity: they would be written as null.
            Ok(found) if !found.loss.is_finite() => Self::Failed(LOSS_NOT_FINITE.to_string()),
            Ok(found) if !is_finite(&found) => {
                Self::Failed("the accuracy or a metric is not a finite number".to_string())
            }
            Ok(found) => Self::Evaluation(found),
            Err(reason) => Self::Failed(reason),
        }
    }
}

fn is_finite(evaluation: &Evaluation) -> bool {
    let values = evaluation.metrics.values().chain(&evaluation.accuracy);
    values.copied().all(f64::is_finite)
}

impl From<ShareEvaluation> for Result<Evaluation, String> {
    fn from(form: ShareEvaluation) -> Self {
        match form {
            ShareEvaluation::Evaluation(evaluation) => Ok(evaluation),
            ShareEvaluation::Failed(reason) => Err(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_no_shares_is_refused() {
        let task = |shares: u32| {
            let text = format!(
                r#"{{"job":1,"round":2,"client":3,"version":4,"kind":"evaluate","share":0,"shares":{shares}}}"#
            );
            serde_json::from_str::<TaskMessage>(&text)
        };
        assert!(task(1).is_ok());
        let error = task(0).unwrap_err().to_string();
        assert!(error.contains("shares is 0"), "{error}");
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
