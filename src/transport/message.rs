//! What is said between a worker and the coordinator.

use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{ModelBody, ReportBody};
use crate::{
    backend::Hardware,
    data::DatasetInfo,
    ids::{ClientId, JobId, ModelVersion, RoundId, WorkerId},
    job::{JobDescription, TrainingSettings},
    parameters::PayloadSpec,
    report::{Refusal, ReportMetadata},
    round::Evaluation,
};

/// The newest version of the protocol that is spoken here.
pub const PROTOCOL: u32 = 2;

/// The oldest version of the protocol that is spoken here. A worker that speaks none of these is refused at registration.
/// Protocol 1 knows jobs in f32 whose reports are a delta alone, and models that are sent whole.
pub const OLDEST_PROTOCOL: u32 = 1;

/// The payload of a model version that has its frozen tensors.
pub const FROZEN: &str = "frozen";

/// A request of a worker.
#[derive(Debug)]
pub enum Request {
    /// Make me one of your workers. Carries the join token where the coordinator wants one.
    Register {
        /// The join token.
        join_token: Option<Token>,
        /// What the worker is.
        registration: Registration,
    },
    /// I am alive, and working on these tasks.
    Heartbeat {
        /// Who.
        credentials: Credentials,
        /// The tasks that are being worked on.
        busy: Vec<TaskMessage>,
    },
    /// I leave.
    Leave {
        /// Who.
        credentials: Credentials,
    },
    /// Give me a task; wait for one if there is none.
    Poll {
        /// Who.
        credentials: Credentials,
        /// The tasks that are being worked on, which are not wanted again.
        busy: Vec<TaskMessage>,
        /// How long to wait at most; the coordinator may wait less.
        wait: Duration,
    },
    /// What is this job?
    Job {
        /// Who.
        credentials: Credentials,
        /// The job.
        job: JobId,
    },
    /// Which examples does this client have?
    Partition {
        /// Who.
        credentials: Credentials,
        /// The job.
        job: JobId,
        /// The client.
        client: ClientId,
    },
    /// Give me a model.
    Model {
        /// Who.
        credentials: Credentials,
        /// The job.
        job: JobId,
        /// The version.
        version: ModelVersion,
        /// The payload beside the model, by name: [`FROZEN`], or one that the task names; none for the model itself.
        payload: Option<String>,
    },
    /// Take this report.
    Report {
        /// Who.
        credentials: Credentials,
        /// The job.
        job: JobId,
        /// The round.
        round: RoundId,
        /// The client.
        client: ClientId,
        /// What it says about itself.
        metadata: ReportMetadata,
        /// Its payloads.
        body: ReportBody,
    },
    /// This client can't do its training task.
    TaskFailed {
        /// Who.
        credentials: Credentials,
        /// The job.
        job: JobId,
        /// The round.
        round: RoundId,
        /// The client.
        client: ClientId,
        /// Why.
        reason: String,
    },
    /// Here is what this client measured on its share of the test split.
    Evaluation {
        /// Who.
        credentials: Credentials,
        /// The job.
        job: JobId,
        /// The version that was evaluated.
        version: ModelVersion,
        /// The client.
        client: ClientId,
        /// The measurements, or why there are none.
        evaluation: Result<Evaluation, String>,
    },
}

/// The answer to a request.
#[derive(Debug)]
pub enum Response {
    /// To `Register`.
    Registered(Registered),
    /// To `Heartbeat`: these of the tasks are not wanted any more.
    Alive {
        /// The tasks to drop.
        unwanted: Vec<TaskMessage>,
    },
    /// To `Poll`: a task.
    Task(TaskMessage),
    /// To `Poll`: none came within the wait. Poll again.
    Idle,
    /// To `Job`.
    Job(JobMessage),
    /// To `Partition`.
    Partition(DatasetShare),
    /// To `Model`.
    Model(ModelBody),
    /// Done: to `Leave`, `Report`, `TaskFailed` and `Evaluation`.
    Accepted,
    /// To anything: no, and why.
    Refused(Refusal),
}

/// What a worker says about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
pub struct Registration {
    /// The newest version of the protocol that it speaks: [`PROTOCOL`].
    pub protocol: u32,
    /// The oldest version that it speaks; left out if it speaks no other than `protocol`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol_min: Option<u32>,
    /// A name for people; a worker with data of its own is known by it when it comes back.
    pub name: String,
    /// How many clients it trains at once, at least 1.
    #[serde(default = "one")]
    pub slots: u32,
    /// What it runs on.
    #[serde(default)]
    pub hardware: Hardware,
    /// What it trains with: `flex`, `libtorch:cuda:0`, `numpy`.
    #[serde(default)]
    pub device: String,
    /// The datasets that it has.
    #[serde(default)]
    pub datasets: Vec<DatasetInfo>,
    /// The names of the encodings that it knows: [`crate::parameters::Encoding::NAMES`] are all there are.
    #[serde(default = "plain")]
    pub encodings: Vec<String>,
    /// What it can do beyond training a delta: `payload:NAME` for each further payload that it can send.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// Whether the data is its own: it then takes part in jobs with `local` data only, as one client.
    #[serde(default)]
    pub local: bool,
}

impl Registration {
    /// The oldest version of the protocol that the worker speaks.
    pub fn protocol_min(&self) -> u32 {
        self.protocol_min.unwrap_or(self.protocol)
    }
}

fn one() -> u32 {
    1
}

fn first_protocol() -> u32 {
    1
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn plain() -> Vec<String> {
    vec!["f32".to_string()]
}

/// What a worker is told at registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
pub struct Registered {
    /// Its identity.
    pub worker: WorkerId,
    /// The version of the protocol that both speak from now on: the newest that both know.
    #[serde(default = "first_protocol")]
    pub protocol: u32,
    /// What it shows from now on.
    pub token: Token,
    /// How often to send a heartbeat, in milliseconds.
    pub heartbeat_ms: u64,
    /// How long to let a poll wait, in milliseconds.
    pub poll_ms: u64,
}

/// Who asks: a worker shows its token with every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The worker.
    pub worker: WorkerId,
    /// The token it was given at registration.
    pub token: Token,
}

/// A secret. `Debug` doesn't show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Token(pub String);

impl Token {
    /// Whether the two are equal, in a time that depends on the length alone.
    pub fn matches(&self, other: &Token) -> bool {
        let (a, b) = (self.0.as_bytes(), other.0.as_bytes());
        a.len() == b.len()
            && a.iter()
                .zip(b)
                .fold(0, |difference, (a, b)| difference | (a ^ b))
                == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(..)")
    }
}

/// A task on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
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
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TaskWork {
    /// Train on the client's partition, then report.
    Train {
        /// How.
        training: TrainingSettings,
        /// Milliseconds from the sending of this message to the round's deadline.
        remaining_ms: u64,
        /// The generation of the client's partition. A partition that was read for an earlier one is to be read anew;
        /// left out where it is 0, as it is unless the data is dealt anew between rounds.
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
    },
    /// Evaluate a share of the test split, then say so.
    Evaluate {
        /// Which share, from 0.
        share: u32,
        /// How many equal shares there are: share `i` of `n` examples is `n * i / shares .. n * (i + 1) / shares`.
        shares: u32,
    },
}

/// A job on its way to a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
pub struct JobMessage {
    /// The job.
    pub job: JobId,
    /// What a worker needs to know of it.
    pub spec: JobDescription,
    /// Whether the model has frozen tensors, which are not sent with each version: a worker fetches them once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub frozen: bool,
}

/// The examples of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
pub struct DatasetShare {
    /// The dataset.
    pub dataset: String,
    /// Its fingerprint; the examples are of this copy alone. Empty for `local` data.
    pub fingerprint: String,
    /// Indices into the training split, in rising order; none where the data is the worker's own.
    #[cfg_attr(feature = "http", schema(value_type = Option<Vec<u32>>))]
    pub indices: Option<Arc<[u32]>>,
}
