//! The coordinator as the routes see it: [`Handler`] and [`Operator`] without their type, so that no route is generic.

use std::{pin::Pin, sync::Arc};

use futures_util::Stream;

use crate::{
    ids::{JobId, ModelVersion},
    job::JobSpec,
    parameters::{Parameters, StoredBody},
    report::Refusal,
    telemetry::{Health, JobSummary, LoggedEvent, RoundRecord, WorkerSummary},
    transport::{Handler, Operator, Request, Response, Token},
};

type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A job's events, the past ones and the coming ones.
pub(super) type Events = Pin<Box<dyn Stream<Item = LoggedEvent> + Send>>;

/// [`Handler`] and [`Operator`], object-safe.
pub(super) trait Endpoint: Send + Sync {
    fn handle(&self, request: Request) -> Later<'_, Response>;
    fn authorize(&self, token: Option<&Token>) -> Result<(), Refusal>;
    fn submit(&self, spec: JobSpec, initial: Option<Parameters>) -> Result<JobSummary, Refusal>;
    fn jobs(&self) -> Vec<JobSummary>;
    fn job(&self, job: JobId) -> Result<JobSummary, Refusal>;
    fn rounds(&self, job: JobId) -> Result<Vec<RoundRecord>, Refusal>;
    fn cancel(&self, job: JobId) -> Later<'_, Result<JobSummary, Refusal>>;
    fn events(&self, job: JobId, after: u64) -> Result<Events, Refusal>;
    fn workers(&self) -> Vec<WorkerSummary>;
    fn model(
        &self,
        job: JobId,
        version: Option<ModelVersion>,
    ) -> Result<(ModelVersion, Arc<dyn StoredBody>), Refusal>;
    fn health(&self) -> Health;
}

impl<C: Handler + Operator> Endpoint for C {
    fn handle(&self, request: Request) -> Later<'_, Response> {
        Box::pin(Handler::handle(self, request))
    }

    fn authorize(&self, token: Option<&Token>) -> Result<(), Refusal> {
        Operator::authorize(self, token)
    }

    fn submit(&self, spec: JobSpec, initial: Option<Parameters>) -> Result<JobSummary, Refusal> {
        Operator::submit(self, spec, initial)
    }

    fn jobs(&self) -> Vec<JobSummary> {
        Operator::jobs(self)
    }

    fn job(&self, job: JobId) -> Result<JobSummary, Refusal> {
        Operator::job(self, job)
    }

    fn rounds(&self, job: JobId) -> Result<Vec<RoundRecord>, Refusal> {
        Operator::rounds(self, job)
    }

    fn cancel(&self, job: JobId) -> Later<'_, Result<JobSummary, Refusal>> {
        Box::pin(Operator::cancel(self, job))
    }

    fn events(&self, job: JobId, after: u64) -> Result<Events, Refusal> {
        Ok(Box::pin(Operator::events(self, job, after)?))
    }

    fn workers(&self) -> Vec<WorkerSummary> {
        Operator::workers(self)
    }

    fn model(
        &self,
        job: JobId,
        version: Option<ModelVersion>,
    ) -> Result<(ModelVersion, Arc<dyn StoredBody>), Refusal> {
        Operator::model(self, job, version)
    }

    fn health(&self) -> Health {
        Operator::health(self)
    }
}
