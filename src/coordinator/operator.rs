//! What operators may ask for. [`super::submission`] has what it takes to accept a job, [`super::lists`] what is read page
//! by page.

use super::{
    access_watch::AccessWatch,
    audit::Actor,
    driver::refusal_of,
    facts::{JOB, LAYOUT, VERSION, json, layout_fact},
    handle::Coordinator,
    history::{History, HistoryPlace, Recorded},
    job::Job,
    journaling::durable,
    offers::note_bystanders,
    submission::{check_encodings, invalid},
    submission_key::SubmittedOnce,
    submitted_once::Reservation,
};
use crate::{
    ids::{JobId, ModelVersion, RoundId, Timestamp, TokenId, WorkerId},
    job::JobError,
    panics,
    protocol::{
        AuditAction, AuditEntry, CreatedToken, Health, JobSummary, JournalStall, NewToken,
        OwnAccess, PROTOCOL, RoundRecord, Scope, TokenSummary, WorkerSummary,
    },
    report::{Refusal, RefusalKind},
    round::{Event, Response},
    store::{
        StoredModel,
        journal::{Batch, Stream},
    },
    transport::{Answer, Caller, Events, ModelBody, Operator, OperatorError, Page, Submission},
};

impl Operator for Coordinator {
    fn authorize<'a>(&'a self, caller: &'a Caller, needed: Scope) -> Answer<'a, ()> {
        now(self.admit(caller, needed).map(drop))
    }

    fn own_access<'a>(&'a self, caller: &'a Caller) -> Answer<'a, OwnAccess> {
        now(self.own_scope(caller))
    }

    fn submit_once<'a>(
        &'a self,
        caller: &'a Caller,
        submission: Submission,
    ) -> Answer<'a, JobSummary> {
        Box::pin(async move {
            let actor = self.admit_change(caller, Scope::Submit)?;
            let coordinator = self.clone();
            // Drawing and keeping the initial model can take seconds, and factories are an embedder's own code, which may panic.
            let submitted = self.0.computing.spawn(&self.0.runtime, move || {
                panics::caught(|| coordinator.try_submit(&actor, submission))
            });
            match submitted.await {
                Ok(Ok(submitted)) => {
                    let submitted = submitted?;
                    self.settled().await?;
                    Ok(submitted)
                }
                Ok(Err(panic)) => {
                    let detail = format!("the job can't be prepared: a panic: {panic}");
                    Err(Refusal::new(RefusalKind::InvalidJob, detail).into())
                }
                // Panics are caught above: only a runtime that shuts down ends here.
                Err(error) => Err(Refusal::new(RefusalKind::Busy, error.to_string()).into()),
            }
        })
    }

    fn jobs_page<'a>(
        &'a self,
        caller: &'a Caller,
        after: JobId,
        limit: usize,
    ) -> Answer<'a, Page<JobSummary, JobId>> {
        self.show(
            self.admit(caller, Scope::Read)
                .map(|_| self.list_jobs(after, limit)),
        )
    }

    fn job<'a>(&'a self, caller: &'a Caller, job: JobId) -> Answer<'a, JobSummary> {
        let found = self
            .admit(caller, Scope::Read)
            .and_then(|_| self.summary(job));
        self.show(found)
    }

    fn rounds_page<'a>(
        &'a self,
        caller: &'a Caller,
        job: JobId,
        after: RoundId,
        limit: usize,
    ) -> Answer<'a, Page<RoundRecord, RoundId>> {
        Box::pin(async move {
            self.admit(caller, Scope::Read)?;
            let page = self.list_rounds(job, after, limit).await?;
            let appended = self.state().appended.clone();
            self.readable(appended).await?;
            Ok(page)
        })
    }

    fn cancel<'a>(&'a self, caller: &'a Caller, job: JobId) -> Answer<'a, JobSummary> {
        self.change(caller, Scope::Submit, |actor| {
            let done = self.end(job)?;
            self.note_job(actor, AuditAction::JobCancelled, job);
            Ok(done)
        })
    }

    fn pause<'a>(&'a self, caller: &'a Caller, job: JobId, paused: bool) -> Answer<'a, JobSummary> {
        let action = if paused {
            AuditAction::JobPaused
        } else {
            AuditAction::JobResumed
        };
        self.change(caller, Scope::Submit, |actor| {
            let done = self.set_paused(job, paused)?;
            self.note_job(actor, action, job);
            Ok(done)
        })
    }

    fn delete<'a>(&'a self, caller: &'a Caller, job: JobId) -> Answer<'a, JobSummary> {
        self.change(caller, Scope::Admin, |actor| {
            let done = self.forget(job)?;
            self.note_job(actor, AuditAction::JobDeleted, job);
            Ok(done)
        })
    }

    fn events<'a>(&'a self, caller: &'a Caller, job: JobId, after: u64) -> Answer<'a, Events> {
        let events = AccessWatch::new(self, caller, Scope::Read)
            .and_then(|access| Ok(access.guard(self.follow(job, after)?)));
        now(events)
    }

    fn workers_page<'a>(
        &'a self,
        caller: &'a Caller,
        after: WorkerId,
        limit: usize,
    ) -> Answer<'a, Page<WorkerSummary, WorkerId>> {
        self.show(
            self.admit(caller, Scope::Read)
                .map(|_| self.list_workers(after, limit)),
        )
    }

    fn model_body<'a>(
        &'a self,
        caller: &'a Caller,
        job: JobId,
        version: Option<ModelVersion>,
    ) -> Answer<'a, (ModelVersion, ModelBody)> {
        let found = self.admit(caller, Scope::Read).and_then(|_| {
            let (version, model) = self.state().job(job)?.model(version)?;
            Ok((version, ModelBody::Stored(model.file())))
        });
        self.show(found)
    }

    fn create_token<'a>(&'a self, caller: &'a Caller, new: NewToken) -> Answer<'a, CreatedToken> {
        self.change(caller, Scope::Admin, |actor| self.make_token(actor, &new))
    }

    fn tokens<'a>(&'a self, caller: &'a Caller) -> Answer<'a, Vec<TokenSummary>> {
        let admitted = self.admit(caller, Scope::Admin);
        self.show(admitted.map(|_| self.list_tokens()))
    }

    fn revoke_token<'a>(&'a self, caller: &'a Caller, token: TokenId) -> Answer<'a, TokenSummary> {
        self.change(caller, Scope::Admin, |actor| self.end_token(actor, token))
    }

    fn revoke_worker<'a>(
        &'a self,
        caller: &'a Caller,
        worker: WorkerId,
    ) -> Answer<'a, WorkerSummary> {
        self.change(caller, Scope::Admin, |actor| self.put_out(actor, worker))
    }

    fn approve_worker<'a>(
        &'a self,
        caller: &'a Caller,
        worker: WorkerId,
    ) -> Answer<'a, WorkerSummary> {
        self.change(caller, Scope::Admin, |actor| self.let_in(actor, worker))
    }

    fn audit_page<'a>(
        &'a self,
        caller: &'a Caller,
        after: u64,
        limit: usize,
    ) -> Answer<'a, Page<AuditEntry, u64>> {
        Box::pin(async move {
            self.admit(caller, Scope::Admin)?;
            let page = self.list_audit(after, limit).await?;
            let appended = self.state().appended.clone();
            self.readable(appended).await?;
            Ok(page)
        })
    }

    fn health<'a>(&'a self) -> Answer<'a, Health> {
        let stall = self.stall();
        let now_here = self.now();
        let state = self.state();
        now(Ok(Health {
            coordinator: self.0.identity.clone(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            protocol: PROTOCOL,
            workers: state.roster.live_count(),
            running: state.turns.jobs().collect(),
            queued: state.queue.len(),
            journal: stall.map(|stall| JournalStall {
                since: Timestamp(now_here.0.saturating_sub(stall.lasts.as_millis() as u64)),
                reason: stall.reason,
            }),
        }))
    }
}

/// An answer that is there already.
fn now<'a, T: Send + 'a>(answer: Result<T, Refusal>) -> Answer<'a, T> {
    Box::pin(std::future::ready(answer.map_err(OperatorError::Refused)))
}

impl Coordinator {
    /// An answer that is there already, once all that it tells is durable.
    fn settle<'a, T: Send + 'a>(&'a self, answer: Result<T, Refusal>) -> Answer<'a, T> {
        let appended = self.state().appended.clone();
        Box::pin(async move {
            durable(appended).await?;
            Ok(answer?)
        })
    }

    /// What a caller asks to be changed, if it may ask for that.
    fn change<'a, T: Send + 'a>(
        &'a self,
        caller: &Caller,
        needed: Scope,
        change: impl FnOnce(&Actor) -> Result<T, Refusal>,
    ) -> Answer<'a, T> {
        match self.admit_change(caller, needed) {
            Ok(actor) => self.settle(change(&actor)),
            Err(refusal) => now(Err(refusal)),
        }
    }

    /// As [`Coordinator::settle`], for a question that changes nothing: if the disk stalls, the answer is what stalls it.
    fn show<'a, T: Send + 'a>(&'a self, answer: Result<T, Refusal>) -> Answer<'a, T> {
        let appended = self.state().appended.clone();
        Box::pin(async move {
            self.readable(appended).await?;
            Ok(answer?)
        })
    }

    /// Where a job's history is.
    pub(super) fn history_place(&self, job: JobId) -> HistoryPlace<'_> {
        HistoryPlace {
            job,
            window: self.0.config.jobs.log_window,
            place: &self.0.logs,
            runtime: &self.0.runtime,
        }
    }

    fn summary(&self, job: JobId) -> Result<JobSummary, Refusal> {
        let mut state = self.state();
        note_bystanders(&mut state, job);
        Ok(state.job(job)?.summary())
    }

    fn end(&self, job: JobId) -> Result<JobSummary, Refusal> {
        let mut state = self.state();
        // Only a machine can end a job, and a job in the queue has none yet.
        self.give_machine(&mut state, job)?;
        let request = state.next_request();
        if let Some(Response::Refused(refusal)) =
            self.drive(&mut state, job, Event::Cancelled { request })
        {
            return Err(refusal);
        }
        Ok(state.job(job)?.summary())
    }

    fn set_paused(&self, job: JobId, paused: bool) -> Result<JobSummary, Refusal> {
        let mut state = self.state();
        state.job(job)?;
        let request = state.next_request();
        let event = Event::Paused { request, paused };
        match self.drive(&mut state, job, event) {
            Some(Response::Accepted) => Ok(state.job(job)?.summary()),
            answer => Err(refusal_of(answer)),
        }
    }

    fn forget(&self, id: JobId) -> Result<JobSummary, Refusal> {
        let mut state = self.state();
        let job = state.job(id)?;
        if job.ended.is_none() {
            let detail = format!("job {id} has not ended: cancel it first");
            return Err(Refusal::new(RefusalKind::Conflict, detail));
        }
        let summary = job.summary();
        self.forget_job(&mut state, id);
        Ok(summary)
    }

    fn note_job(&self, actor: &Actor, action: AuditAction, job: JobId) {
        let mut state = self.state();
        self.note_action(&mut state, actor, action, format!("job {job}"));
    }

    fn try_submit(&self, actor: &Actor, submission: Submission) -> Result<JobSummary, Refusal> {
        let mut reserved = None;
        if let Some(key) = &submission.key {
            match self.reserve(SubmittedOnce::new(key, &submission))? {
                Reservation::Known(summary) => return Ok(*summary),
                Reservation::New(new) => reserved = Some(new),
            }
        }
        let Submission {
            mut spec, initial, ..
        } = submission;
        // Cheap checks come first, so that a bad job is refused before its model is drawn.
        spec.validate().map_err(|error| invalid(&error))?;
        spec.partition
            .validate()
            .map_err(|error| invalid(&JobError::new("partition", error.to_string())))?;
        let source = self.source_of(&mut spec)?;
        let initial = match (&source, initial) {
            (Some(_), Some(_)) => {
                let problem = "can't be given with an initial model: one of the two";
                return Err(invalid(&JobError::new("continues", problem)));
            }
            (Some(source), None) => Some(
                source
                    .model
                    .parameters()
                    .map_err(|error| Refusal::new(RefusalKind::Storage, error.to_string()))?,
            ),
            (None, initial) => initial,
        };
        let has_data = self.0.trainers.dataset(&spec.dataset);
        self.check_clients(&spec, has_data.as_ref().ok())?;
        let initial = self.initial(&spec, initial)?;
        let mut strategy = self.make_strategy(&spec, initial.layout())?;
        self.check_strategy(&spec, &*strategy.strategy)?;
        let completed = spec.strategy.complete(&self.0.catalogue);
        completed.map_err(|error| invalid(&error.into()))?;
        let secret = source.as_ref().and_then(|source| source.secret);
        if let Some(secret) = secret {
            strategy.seeds.secret = secret;
        }
        let evaluation = self.evaluation(&spec, has_data.is_ok())?;

        // A full queue refuses before the model is written. The lock is not held meanwhile: writing may wait for a
        // disk.
        let id = {
            let mut state = self.state();
            self.check_queue(&state)?;
            state.next_job()
        };
        let from = source.as_ref().filter(|_| secret.is_some());
        let from = from.map(|source| &*source.model as &dyn StoredModel);
        let initial = self.keep_initial(id, &spec, &initial, &strategy.state, from)?;
        let history = History::new(self.history_place(id), Recorded::default());
        let now = self.now();
        let mut job = Job::new(id, spec, initial, strategy, evaluation, history, now);
        job.continuation = source.map(|source| source.continuation);
        job.once = reserved.as_ref().map(|reserved| reserved.once.clone());
        if let (Ok(dataset), false) = (has_data, job.spec.partition.is_local()) {
            // Known before the data is dealt, so that no worker with another copy is counted on.
            job.fingerprint = dataset.fingerprint;
        }
        let mut state = self.state();
        // Others may have submitted meanwhile: checked again under the lock that queues the job.
        let room = self
            .check_queue(&state)
            .and_then(|()| check_encodings(&state, &job));
        if let Err(refusal) = room {
            // Removing files may wait for a disk.
            drop(state);
            self.0.models.remove(id, None);
            return Err(refusal);
        }
        let batch = Batch::default()
            .fact(JOB, json(&job.fact()))
            .fact(LAYOUT, layout_fact(&job.layout))
            .fact(format!("{VERSION}0"), json(&job.models_published()));
        state.jobs.insert(id, job);
        state.queue.push_back(id);
        self.append(&mut state, Stream::Job(id), batch);
        self.write_workers(&mut state, &[]);
        let action = AuditAction::JobSubmitted;
        self.note_action(&mut state, actor, action, format!("job {id}"));
        self.start_next(&mut state);
        let summary = state.job(id)?.summary();
        // Its end takes the lock.
        drop(state);
        drop(reserved);
        Ok(summary)
    }
}
