//! What a coordinator offers to operators: the seam that a transport's operator routes call.

use std::{future::Future, sync::Arc};

use futures_util::Stream;

use super::Token;
use crate::{
    ids::{JobId, ModelVersion},
    job::JobSpec,
    parameters::{Parameters, StoredBody},
    report::Refusal,
    telemetry::{Health, JobSummary, LoggedEvent, RoundRecord, WorkerSummary},
};

/// The operator's side of a coordinator.
///
/// # Contract
///
/// A transport calls [`Operator::authorize`] first, with what the operator showed, and no other method unless it is
/// granted; [`Operator::health`] alone is for everybody. What can't be granted is a [`Refusal`]. No method waits for
/// long: what takes long goes on after the answer, and is seen in the job's summary and events.
pub trait Operator: Send + Sync + 'static {
    /// Whether one who shows this token may act as an operator. A worker's token is not enough; where `None` is,
    /// everybody is an operator.
    ///
    /// # Errors
    ///
    /// [`crate::report::RefusalKind::Unauthorized`] without a token or with an unknown one,
    /// [`crate::report::RefusalKind::Forbidden`] with a worker's.
    fn authorize(&self, token: Option<&Token>) -> Result<(), Refusal>;

    /// Queues a job, which starts from `initial` where it is given.
    ///
    /// # Errors
    ///
    /// [`crate::report::RefusalKind::InvalidJob`] and [`crate::report::RefusalKind::Busy`].
    fn submit(&self, spec: JobSpec, initial: Option<Parameters>) -> Result<JobSummary, Refusal>;

    /// The jobs that are remembered, in order of their numbers.
    fn jobs(&self) -> Vec<JobSummary>;

    /// One job.
    ///
    /// # Errors
    ///
    /// [`crate::report::RefusalKind::UnknownJob`].
    fn job(&self, job: JobId) -> Result<JobSummary, Refusal>;

    /// The records of a job's rounds that have ended.
    ///
    /// # Errors
    ///
    /// [`crate::report::RefusalKind::UnknownJob`].
    fn rounds(&self, job: JobId) -> Result<Vec<RoundRecord>, Refusal>;

    /// Ends a job.
    ///
    /// # Errors
    ///
    /// [`crate::report::RefusalKind::UnknownJob`], and [`crate::report::RefusalKind::Conflict`] where it has ended.
    fn cancel(&self, job: JobId) -> impl Future<Output = Result<JobSummary, Refusal>> + Send;

    /// The entries of a job's event log after the one with this number: those that are there, then new ones as they
    /// come. The stream ends after the job's last.
    ///
    /// # Errors
    ///
    /// [`crate::report::RefusalKind::UnknownJob`].
    fn events(
        &self,
        job: JobId,
        after: u64,
    ) -> Result<impl Stream<Item = LoggedEvent> + Send + 'static, Refusal>;

    /// The workers, live and gone, in order of their numbers.
    fn workers(&self) -> Vec<WorkerSummary>;

    /// The global model of this version as it is (f32), whatever the job sends; of the latest, where none is named.
    ///
    /// # Errors
    ///
    /// [`crate::report::RefusalKind::UnknownJob`]; [`crate::report::RefusalKind::NotFound`] for a version that never
    /// was, and [`crate::report::RefusalKind::Gone`] for one that is not kept.
    fn model(
        &self,
        job: JobId,
        version: Option<ModelVersion>,
    ) -> Result<(ModelVersion, Arc<dyn StoredBody>), Refusal>;

    /// Whether the coordinator is well. Anybody may ask, so that it names nobody.
    fn health(&self) -> Health;
}
