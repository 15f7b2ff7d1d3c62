//! What a round machine orders, and its driver carries out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ClientEvaluation, Evaluation, StopRule};
use crate::{
    ids::{ClientId, ModelVersion, RequestId, RoundId, Timestamp, WorkerId},
    objective::Objective,
    parameters::PayloadSpec,
    report::Refusal,
    settings::{EvalSplit, TrainingSettings},
    strategy::ClientInfo,
};

/// An order to the driver. Those that take long end with an event of their own; the machine goes on meanwhile.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Command {
    /// Fix the job's clients and deal the data over them; ends with [`super::Event::Prepared`].
    Prepare {
        /// The workers that are there, in order of registration, with their slots.
        workers: Vec<(WorkerId, u32)>,
    },
    /// Say whether the data is dealt again before this round; ends with [`super::Event::Dealt`]. Ordered only if
    /// [`super::MachineConfig::deals`] says so, and never while a round is open.
    Deal {
        /// The round that is about to begin.
        round: RoundId,
    },
    /// Ask the strategy for a plan; ends with [`super::Event::Planned`].
    Plan {
        /// The round.
        round: RoundId,
        /// The version it starts from.
        version: ModelVersion,
        /// The clients that can take part, in order.
        clients: Vec<ClientInfo>,
    },
    /// There may be a task for this worker now: let a waiting request of it ask again.
    Wake {
        /// The worker.
        worker: WorkerId,
    },
    /// Answer a request.
    Respond {
        /// The request.
        request: RequestId,
        /// The answer.
        response: Response,
    },
    /// Fold these reports into the next model; ends with [`super::Event::Aggregated`].
    Aggregate {
        /// The round.
        round: RoundId,
        /// The version that the reports start from.
        base: ModelVersion,
        /// The accepted reports, in client order, each with the request that uploaded it.
        accepted: Vec<(ClientId, RequestId)>,
    },
    /// Store the aggregate, then serve it as this version; ends with [`super::Event::Published`].
    Publish {
        /// The round that made it.
        round: RoundId,
        /// The version it becomes.
        version: ModelVersion,
    },
    /// Evaluate this version; ends with [`super::Event::Evaluated`].
    Evaluate {
        /// The version.
        version: ModelVersion,
        /// On which examples.
        split: EvalSplit,
    },
    /// End an upload: its round is over, or its client's report is to come from another worker. It is refused
    /// when it ends.
    EndUpload {
        /// The request that uploads.
        upload: RequestId,
    },
    /// Forget the reports of a round, and an aggregate of it that was not published: what is still being uploaded,
    /// folded or stored for it at this moment is forgotten when it ends.
    Discard {
        /// The round.
        round: RoundId,
    },
    /// Add to the job's event log.
    Log(JobEvent),
    /// The job is over. Nothing but answers to requests follows.
    End(Outcome),
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Response {
    /// A task for the worker.
    Task(Task),
    /// No task at present: a [`Command::Wake`] follows when that may have changed.
    Idle,
    /// The report may be uploaded.
    Admitted,
    /// Done. For a report: it is accepted, now or by an earlier request.
    Accepted,
    /// No, and why.
    Refused(Refusal),
}

/// What a cohort member is told to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// The client to act for.
    pub client: ClientId,
    /// The round; for an evaluation, the round that made the version.
    pub round: RoundId,
    /// The version of the global model to start from, or to evaluate.
    pub version: ModelVersion,
    /// Training or evaluation.
    pub kind: TaskKind,
}

/// The two kinds of task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum TaskKind {
    /// Train on the client's partition and report.
    Train {
        /// How.
        training: TrainingSettings,
        /// A report after this moment is late.
        deadline: Timestamp,
        /// The last round whose commit folded this client's report, if any has.
        basis: Option<RoundId>,
        /// The payloads of the version that it needs beside the model.
        sends: Vec<String>,
        /// The payloads that its report must have.
        expects: Vec<PayloadSpec>,
        /// What it minimizes beside its loss.
        #[serde(default)]
        objective: Objective,
    },
    /// Evaluate one of `shares` equal parts of a split.
    Evaluate {
        /// Which part, from 0.
        share: u32,
        /// How many parts there are.
        shares: u32,
        /// The split.
        #[serde(default)]
        split: EvalSplit,
    },
}

impl TaskKind {
    /// What is evaluated; none of a training.
    pub fn split(&self) -> Option<EvalSplit> {
        match self {
            Self::Train { .. } => None,
            Self::Evaluate { split, .. } => Some(*split),
        }
    }
}

impl Task {
    /// Whether the two are the same piece of work.
    pub fn is_same_work(&self, other: &Task) -> bool {
        self.kind.split() == other.kind.split()
            && (self.client, self.round, self.version) == (other.client, other.round, other.version)
    }
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(tag = "outcome", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// Every round was committed.
    Completed,
    /// A rule of its own ended it before its last round.
    Stopped {
        /// The rule.
        rule: StopRule,
        /// The reason, in words.
        reason: String,
    },
    /// It could not go on.
    Failed {
        /// Why.
        reason: String,
    },
    /// The operator ended it.
    Cancelled,
}

/// A client whose accepted report a strategy left out of the next model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
pub struct Excluded {
    /// The client.
    pub client: ClientId,
    /// Why, in the strategy's words.
    pub reason: String,
}

/// An entry of a job's event log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum JobEvent {
    /// The job waits: for workers, for example.
    Waiting {
        /// What for, in words.
        reason: String,
    },
    /// The coordinator was away and is back, and the job goes on.
    Recovered {
        /// How long it was away, in milliseconds. Deadlines are later by as much.
        downtime_ms: u64,
    },
    /// The operator wants no further round to begin. The open one goes on.
    Paused,
    /// The operator lets rounds begin again.
    Unpaused,
    /// The clients are fixed, and the rounds begin.
    Started {
        /// Number of clients.
        clients: u32,
    },
    /// The data was dealt again, before a round.
    Dealt {
        /// The first round with these partitions.
        round: RoundId,
        /// The number of examples of each client, in order.
        examples: Vec<u64>,
    },
    /// A client's lease went to a worker, or has no holder for now.
    Leased {
        /// The client.
        client: ClientId,
        /// Who had it.
        from: Option<WorkerId>,
        /// Who has it.
        to: Option<WorkerId>,
    },
    /// A worker that has the data gets no tasks: it is not able to do what the round's plan needs.
    WorkerPassedOver {
        /// The worker.
        worker: WorkerId,
        /// What it lacks, in words.
        lacks: String,
    },
    /// A worker with data of its own is there under the name of one that was lost, and has that one's clients.
    WorkerReturned {
        /// The worker.
        worker: WorkerId,
        /// The one that was lost.
        replaces: WorkerId,
        /// The name of both.
        name: String,
    },
    /// The data of a client's worker has another size than before.
    DataResized {
        /// The client.
        client: ClientId,
        /// The number of its examples from now on.
        examples: u64,
    },
    /// A round began.
    RoundStarted {
        /// The round.
        round: RoundId,
        /// The version it starts from.
        version: ModelVersion,
        /// Who trains.
        cohort: Vec<ClientId>,
        /// How many reports it waits for.
        goal: usize,
        /// How many may commit it.
        quorum: usize,
    },
    /// A worker took a task.
    TaskIssued {
        /// The round.
        round: RoundId,
        /// The client.
        client: ClientId,
        /// The worker.
        worker: WorkerId,
    },
    /// A report is accepted.
    ReportAccepted {
        /// The round.
        round: RoundId,
        /// The client.
        client: ClientId,
        /// The worker.
        worker: WorkerId,
        /// Number of examples it counts for.
        examples: u64,
    },
    /// A report is refused.
    ReportRefused {
        /// The round it was for.
        round: RoundId,
        /// The client.
        client: ClientId,
        /// The worker.
        worker: WorkerId,
        /// Why.
        refusal: Refusal,
    },
    /// A client takes no further part in the round.
    ClientFailed {
        /// The round.
        round: RoundId,
        /// The client.
        client: ClientId,
        /// The worker that acted for it; left out if there was none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        worker: Option<WorkerId>,
        /// Why.
        reason: String,
    },
    /// A round made a new version.
    RoundCommitted {
        /// The round.
        round: RoundId,
        /// The version it made.
        version: ModelVersion,
        /// The clients whose reports were accepted, in order: those that were folded and those that were excluded.
        #[serde(default)]
        accepted: Vec<ClientId>,
        /// The clients whose reports are in the version, in order.
        #[serde(alias = "clients")]
        folded: Vec<ClientId>,
        /// The clients whose reports the strategy left out, in order; left out if there are none.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        excluded: Vec<Excluded>,
        /// The mean of the folded reports' training losses, weighted by examples; none unless each of them has one.
        train_loss: Option<f64>,
        /// What the strategy measured, as far as the values are finite; left out if there is nothing.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        metrics: BTreeMap<String, f64>,
    },
    /// A round made nothing.
    RoundAbandoned {
        /// The round.
        round: RoundId,
        /// The clients whose reports had been accepted, in order.
        #[serde(default)]
        accepted: Vec<ClientId>,
        /// The clients whose reports the strategy left out, in order; left out if there are none, or the round did not get so far.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        excluded: Vec<Excluded>,
        /// What the strategy measured, as of a commit; left out if there is nothing.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        metrics: BTreeMap<String, f64>,
        /// Why.
        reason: String,
    },
    /// A version was evaluated.
    Evaluated {
        /// The version.
        version: ModelVersion,
        /// On which examples; left out if it is the test split.
        #[serde(default, skip_serializing_if = "EvalSplit::is_test")]
        split: EvalSplit,
        /// The measurements; none if it could not be evaluated.
        evaluation: Option<Evaluation>,
        /// Why there are none.
        reason: Option<String>,
        /// What each client measured on data of its own, in order; left out if the workers have no data of their own. At most
        /// 1000 clients: the first ones.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        by_client: Vec<ClientEvaluation>,
    },
    /// The loss is not finite, or more than ten times the first, and the job has no rule that ends it. Said once.
    Diverges {
        /// What was seen, in words.
        reason: String,
    },
    /// The job is over.
    Ended(Outcome),
}
