//! An operator that trusts every caller, so that what the routes ask for is all that keeps callers out.

use super::*;
use crate::{
    ids::{ModelVersion, WorkerId},
    protocol::{AuditEntry, CreatedToken, Health, OwnAccess, TokenSummary, WorkerSummary},
    transport::{Answer, Events, ModelBody, Page, Submission},
};

static TRUSTED: Caller = Caller {
    peer: Peer::InProcess,
    token: None,
};

/// A coordinator that checks a caller only if it is asked to ([`Operator::authorize`]).
pub(super) struct Trusting(pub Coordinator);

impl Operator for Trusting {
    fn authorize<'a>(&'a self, caller: &'a Caller, needed: Scope) -> Answer<'a, ()> {
        self.0.authorize(caller, needed)
    }

    fn own_access<'a>(&'a self, _: &'a Caller) -> Answer<'a, OwnAccess> {
        self.0.own_access(&TRUSTED)
    }

    fn submit_once<'a>(&'a self, _: &'a Caller, submission: Submission) -> Answer<'a, JobSummary> {
        self.0.submit_once(&TRUSTED, submission)
    }

    fn jobs_page<'a>(
        &'a self,
        _: &'a Caller,
        after: JobId,
        limit: usize,
    ) -> Answer<'a, Page<JobSummary, JobId>> {
        self.0.jobs_page(&TRUSTED, after, limit)
    }

    fn job<'a>(&'a self, _: &'a Caller, job: JobId) -> Answer<'a, JobSummary> {
        self.0.job(&TRUSTED, job)
    }

    fn rounds_page<'a>(
        &'a self,
        _: &'a Caller,
        job: JobId,
        after: RoundId,
        limit: usize,
    ) -> Answer<'a, Page<RoundRecord, RoundId>> {
        self.0.rounds_page(&TRUSTED, job, after, limit)
    }

    fn cancel<'a>(&'a self, _: &'a Caller, job: JobId) -> Answer<'a, JobSummary> {
        self.0.cancel(&TRUSTED, job)
    }

    fn pause<'a>(&'a self, _: &'a Caller, job: JobId, paused: bool) -> Answer<'a, JobSummary> {
        self.0.pause(&TRUSTED, job, paused)
    }

    fn delete<'a>(&'a self, _: &'a Caller, job: JobId) -> Answer<'a, JobSummary> {
        self.0.delete(&TRUSTED, job)
    }

    fn events<'a>(&'a self, _: &'a Caller, job: JobId, after: u64) -> Answer<'a, Events> {
        self.0.events(&TRUSTED, job, after)
    }

    fn workers_page<'a>(
        &'a self,
        _: &'a Caller,
        after: WorkerId,
        limit: usize,
    ) -> Answer<'a, Page<WorkerSummary, WorkerId>> {
        self.0.workers_page(&TRUSTED, after, limit)
    }

    fn model_body<'a>(
        &'a self,
        _: &'a Caller,
        job: JobId,
        version: Option<ModelVersion>,
    ) -> Answer<'a, (ModelVersion, ModelBody)> {
        self.0.model_body(&TRUSTED, job, version)
    }

    fn create_token<'a>(&'a self, _: &'a Caller, new: NewToken) -> Answer<'a, CreatedToken> {
        self.0.create_token(&TRUSTED, new)
    }

    fn tokens<'a>(&'a self, _: &'a Caller) -> Answer<'a, Vec<TokenSummary>> {
        self.0.tokens(&TRUSTED)
    }

    fn revoke_token<'a>(&'a self, _: &'a Caller, token: TokenId) -> Answer<'a, TokenSummary> {
        self.0.revoke_token(&TRUSTED, token)
    }

    fn revoke_worker<'a>(&'a self, _: &'a Caller, worker: WorkerId) -> Answer<'a, WorkerSummary> {
        self.0.revoke_worker(&TRUSTED, worker)
    }

    fn approve_worker<'a>(&'a self, _: &'a Caller, worker: WorkerId) -> Answer<'a, WorkerSummary> {
        self.0.approve_worker(&TRUSTED, worker)
    }

    fn audit_page<'a>(
        &'a self,
        _: &'a Caller,
        after: u64,
        limit: usize,
    ) -> Answer<'a, Page<AuditEntry, u64>> {
        self.0.audit_page(&TRUSTED, after, limit)
    }

    fn health<'a>(&'a self) -> Answer<'a, Health> {
        self.0.health()
    }
}
