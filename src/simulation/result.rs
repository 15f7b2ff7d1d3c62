//! What a run leaves behind, at its end and at each checkpoint.

use std::{fmt, sync::Arc};

use crate::{
    coordinator::Coordinator,
    ids::{JobId, RoundId},
    job::JobSpec,
    parameters::Parameters,
    protocol::{JobSummary, LoggedEvent, RoundRecord},
    report::RefusalKind,
    transport::{Caller, Operator, OperatorError},
};

/// What a run left behind.
#[derive(Clone)]
#[non_exhaustive]
pub struct SimulationResult {
    /// The job, ended. Its specification is what was asked for.
    pub job: JobSummary,
    /// The record of each round, in order.
    pub rounds: Vec<RoundRecord>,
    /// The event log.
    pub log: Vec<LoggedEvent>,
    /// The global model after the last commit.
    pub model: Arc<Parameters>,
    /// The best version's, if it is not that one.
    pub best_model: Option<Arc<Parameters>>,
}

impl fmt::Debug for SimulationResult {
    /// A line: the log and the model would be megabytes in a program that returns an error from `main`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SimulationResult")
            .field("outcome", &self.job.outcome)
            .field("version", &self.job.version)
            .field("rounds", &self.rounds.len())
            .finish_non_exhaustive()
    }
}

/// What there is of a job. Its specification is `asked`, not what the simulation made of it to run it.
pub(super) async fn collect(
    coordinator: &Coordinator,
    job: JobId,
    asked: &JobSpec,
) -> Result<SimulationResult, OperatorError> {
    let here = Caller::in_process();
    let mut summary = coordinator.job(&here, job).await?;
    summary.spec = asked.clone();
    let mut best_model = None;
    if let Some(best) = &summary.best
        && best.measured.version != summary.version
    {
        let found = coordinator
            .model(&here, job, Some(best.measured.version))
            .await;
        best_model = match found {
            // A checkpoint of a job that goes on: another version has become the best one meanwhile.
            Err(OperatorError::Refused(refusal)) if refusal.kind == RefusalKind::Gone => None,
            found => Some(found?),
        };
    }
    Ok(SimulationResult {
        job: summary,
        rounds: coordinator.rounds(&here, job, RoundId(0)).await?,
        log: coordinator.log(job).await.map_err(OperatorError::Refused)?,
        model: coordinator.model(&here, job, None).await?,
        best_model,
    })
}
