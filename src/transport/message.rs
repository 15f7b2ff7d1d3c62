//! What is said between a worker and the coordinator.

use std::time::Duration;

use super::{ModelBody, ReportBody};
use crate::{
    ids::{ClientId, JobId, ModelVersion, RoundId, WorkerId},
    job::EvalSplit,
    parameters::Digest,
    protocol::{DatasetPartition, JobMessage, Registered, Registration, TaskMessage, Token},
    report::{Refusal, ReportMetadata},
    round::Evaluation,
};

/// A request of a worker.
#[derive(Debug)]
#[non_exhaustive]
pub enum Request {
    /// Make me one of your workers. Carries the join token if the coordinator wants one.
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
    /// Give me another token. The one that I show counts until I show the new one.
    Rotate {
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
        /// The payload beside the model, by name: [`FROZEN`](crate::protocol::FROZEN), or one that the task names; none for
        /// the model itself.
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
    /// How much of this report have you kept, since its upload broke off? An upload of it by the same worker that is still
    /// under way ends.
    UploadOffset {
        /// Who.
        credentials: Credentials,
        /// The job.
        job: JobId,
        /// The round.
        round: RoundId,
        /// The client.
        client: ClientId,
        /// Of the whole body.
        digest: Digest,
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
    /// Here is what this client measured on its share of a split.
    Evaluation {
        /// Who.
        credentials: Credentials,
        /// The job.
        job: JobId,
        /// The version that was evaluated.
        version: ModelVersion,
        /// On which examples.
        split: EvalSplit,
        /// The client.
        client: ClientId,
        /// The measurements, or why there are none.
        evaluation: Result<Evaluation, String>,
    },
}

/// The answer to a request.
#[derive(Debug)]
#[non_exhaustive]
pub enum Response {
    /// To `Register`.
    Registered(Registered),
    /// To `Rotate`: the new token.
    Rotated(Token),
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
    Partition(DatasetPartition),
    /// To `Model`.
    Model(ModelBody),
    /// Done: to `Leave`, `Report`, `TaskFailed` and `Evaluation`; and to `UploadOffset`, if that report has been accepted.
    Accepted,
    /// To `UploadOffset`: how many bytes of the body are kept; 0 if none. The rest begins there.
    UploadOffset(u64),
    /// To anything: no, and why.
    Refused(Refusal),
}

/// Who a request comes from, as its head says it: enough to refuse it before its body is read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Requester {
    /// A worker that registers, with the join token that it shows.
    NewWorker {
        /// The join token, if any.
        join_token: Option<Token>,
    },
    /// A registered worker.
    Worker(Credentials),
}

/// The worker that asks. It shows its token with every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The worker.
    pub worker: WorkerId,
    /// The token it was given at registration.
    pub token: Token,
}
