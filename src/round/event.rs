//! What can happen to a job.

use serde::{Deserialize, Serialize};

use super::{Command, Evaluation};
use crate::{
    ids::{ClientId, ModelVersion, RequestId, RoundId, WorkerId},
    report::{Refusal, ReportMetadata},
    settings::EvalSplit,
    strategy::{Aggregation, RoundPlan},
};

/// A client, as the driver fixed it when the job started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientSpec {
    /// Number of examples in its partition. It changes with [`Event::Dealt`] and [`Event::DataResized`].
    pub examples: u64,
    /// The one worker that can act for it, if the data is the worker's own, or if it keeps the client's personal tensors.
    pub home: Option<WorkerId>,
}

/// Something happened. Events with a `request` get exactly one [`super::Command::Respond`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Event {
    /// Time passed: send it at [`super::RoundMachine::poll_deadline`].
    Tick,
    /// The driver was away and is back: a process that recovered the machine from its journal. Commands that were under way
    /// are given again, uploads that were under way have ended, and deadlines move by the time that it was away.
    Recovered {
        /// How long it was away, in milliseconds.
        downtime_ms: u64,
        /// Why the round that is open can't go on, if so: it is abandoned.
        abandon: Option<String>,
    },
    /// The driver stood still and is back, with all that it had: a process that was stopped. Deadlines move by the time that it
    /// was away.
    WasAway {
        /// How long it was away, in milliseconds.
        away_ms: u64,
    },
    /// The driver can't carry the job on: something that it needs is gone. The job fails.
    Broken {
        /// Why.
        reason: String,
    },
    /// A worker that can train this job is there. `slots`: how many clients it trains at once, at least 1.
    WorkerJoined {
        /// The worker.
        worker: WorkerId,
        /// How many clients it trains at once.
        slots: u32,
        /// The worker whose own data it has, if it is that worker come back. Clients of that data move to it, at
        /// once or when the other is lost.
        replaces: Option<WorkerId>,
    },
    /// The clients whose data this worker alone has, or had, have this many examples from now on. Sent before
    /// [`Event::WorkerJoined`] of one that replaces it. 0 counts as 1, and what the client then sends says what is wrong.
    DataResized {
        /// The worker, which may be gone.
        worker: WorkerId,
        /// How many examples it has.
        examples: u64,
    },
    /// A worker left, or has been silent for too long.
    WorkerLost {
        /// The worker.
        worker: WorkerId,
    },
    /// [`super::Command::Prepare`] is done: the job's clients, numbered from 0, or why there are none.
    Prepared(Result<Vec<ClientSpec>, String>),
    /// [`super::Command::Deal`] is done. At any other moment it counts for nothing.
    Dealt {
        /// The round that was about to begin.
        round: RoundId,
        /// The number of examples of each client from now on, in order; none if everything stays as it is. One that
        /// does not name each client, or leaves one without examples, counts as none.
        examples: Option<Vec<u64>>,
    },
    /// [`super::Command::Plan`] is done.
    Planned {
        /// The round.
        round: RoundId,
        /// The plan, or why there is none.
        plan: Result<RoundPlan, String>,
    },
    /// A worker asks for a task.
    TaskRequested {
        /// Whom the reply goes to.
        request: RequestId,
        /// The worker that asks.
        worker: WorkerId,
        /// The tasks that it is working on already.
        busy: Vec<super::Task>,
    },
    /// A worker wants to submit a report, and says what it will be.
    ReportOffered {
        /// Whom the reply goes to.
        request: RequestId,
        /// Who offers.
        worker: WorkerId,
        /// The client it trained for.
        client: ClientId,
        /// The round it trained in.
        round: RoundId,
        /// What it says about the report.
        metadata: ReportMetadata,
    },
    /// An admitted report has been read to its end, or broke off: every admitted upload ends with this. The driver
    /// drops one that is then refused.
    ReportStored {
        /// Whom the reply goes to.
        request: RequestId,
        /// The request that had offered it.
        upload: RequestId,
        /// The client it is of.
        client: ClientId,
        /// The round it is of.
        round: RoundId,
        /// Whether it is in the spool, or why it is not.
        stored: Result<(), Refusal>,
    },
    /// A worker could not do a training task.
    TaskFailed {
        /// Whom the reply goes to.
        request: RequestId,
        /// Who says so.
        worker: WorkerId,
        /// The client.
        client: ClientId,
        /// The round.
        round: RoundId,
        /// Why.
        reason: String,
    },
    /// A worker has evaluated its client's share of the test split.
    ShareEvaluated {
        /// Whom the reply goes to.
        request: RequestId,
        /// Who did.
        worker: WorkerId,
        /// The client.
        client: ClientId,
        /// The version it evaluated.
        version: ModelVersion,
        /// On which examples.
        #[serde(default)]
        split: EvalSplit,
        /// The measurements, or why there are none.
        evaluation: Result<Evaluation, String>,
    },
    /// [`super::Command::Aggregate`] is done.
    Aggregated {
        /// The round.
        round: RoundId,
        /// What the strategy says of it, or why it failed.
        aggregation: Result<Aggregation, String>,
        /// Joules that its folded reports have cost, as far as they were measured.
        #[serde(default)]
        joules: f64,
    },
    /// [`super::Command::Publish`] is done: the version is stored and served.
    Published {
        /// The version.
        version: ModelVersion,
        /// Whether it is, or why not.
        published: Result<(), String>,
    },
    /// [`super::Command::Evaluate`] is done.
    Evaluated {
        /// The version.
        version: ModelVersion,
        /// On which examples.
        #[serde(default)]
        split: EvalSplit,
        /// The measurements, or why there are none.
        evaluation: Result<Evaluation, String>,
    },
    /// The operator wants that no further round begins, or that rounds begin again.
    Paused {
        /// Whom the reply goes to.
        request: RequestId,
        /// Whether the job is to pause.
        paused: bool,
    },
    /// The operator ends the job.
    Cancelled {
        /// Whom the reply goes to.
        request: RequestId,
    },
}

impl Event {
    /// Whether this event, which led to these commands, left the machine as it was. A driver with a journal need not write it
    /// down: most polls are of this kind.
    pub fn changed_nothing(&self, commands: &[Command]) -> bool {
        matches!(self, Self::TaskRequested { .. })
            && commands
                .iter()
                .all(|command| matches!(command, Command::Respond { .. }))
    }
}
