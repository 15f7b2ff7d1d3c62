//! What a coordinator offers to operators, in its own process and from afar.

mod answer;
mod submission;

use std::{collections::VecDeque, io::Write, sync::Arc, time::Duration};

pub use answer::{Answer, Events, OperatorError, Records};
use answer::{all, without_tokens};
use futures_util::{StreamExt, stream};
pub use submission::{Submission, SubmissionKey};
use tokio::time::sleep;

use super::{Caller, ModelBody, Page};
use crate::{
    ids::{CoordinatorId, JobId, ModelVersion, RoundId, TokenId, WorkerId},
    job::{EvaluationMode, JobSpec},
    parameters::{Encoding, Parameters},
    protocol::{
        AuditEntry, CreatedToken, Health, JobSummary, LoggedEvent, NewToken, OwnAccess,
        RoundRecord, Scope, TokenSummary, WorkerSummary,
    },
    round::JobEvent,
};

/// Entries of a list that are asked for at once. A coordinator may give fewer.
const PAGE: usize = 1000;

/// How long to wait before looking again at a job whose events ended before the job did.
const PAUSE: Duration = Duration::from_millis(200);

/// The operator's side of a coordinator: [`Coordinator`](crate::coordinator::Coordinator) itself, or a client of one.
/// Object-safe, so that a program holds an `Arc<dyn Operator>` and need not know which.
///
/// # Contract
///
/// Each method checks whether its caller may ask, and answers [`OperatorError::Refused`] if not, before it does anything;
/// [`Operator::health`] alone is for everybody. No method waits for long, but for the streams and [`Operator::wait`]: what takes
/// long goes on after the answer, and is seen in the job's summary and events.
pub trait Operator: Send + Sync + 'static {
    /// Whether the caller may do what needs this scope.
    ///
    /// # Errors
    ///
    /// [`Unauthorized`](crate::report::RefusalKind::Unauthorized) without a token or with one that is unknown or has ended,
    /// [`Forbidden`](crate::report::RefusalKind::Forbidden) with one for something else: of a smaller scope, for joining, or a
    /// worker's.
    fn authorize<'a>(&'a self, caller: &'a Caller, needed: Scope) -> Answer<'a, ()>;

    /// What the caller may do.
    ///
    /// # Errors
    ///
    /// As [`Operator::authorize`].
    fn own_access<'a>(&'a self, caller: &'a Caller) -> Answer<'a, OwnAccess>;

    /// Queues a job; or, if there is one that was submitted with the same key, answers with that one.
    ///
    /// # Errors
    ///
    /// [`InvalidJob`](crate::report::RefusalKind::InvalidJob) and [`Busy`](crate::report::RefusalKind::Busy);
    /// [`Conflict`](crate::report::RefusalKind::Conflict) if the key is that of another job.
    fn submit_once<'a>(
        &'a self,
        caller: &'a Caller,
        submission: Submission,
    ) -> Answer<'a, JobSummary>;

    /// Queues a job, which starts from `initial` if it is given. Each call is another job.
    ///
    /// # Errors
    ///
    /// As [`Operator::submit_once`].
    fn submit<'a>(
        &'a self,
        caller: &'a Caller,
        spec: JobSpec,
        initial: Option<Arc<Parameters>>,
    ) -> Answer<'a, JobSummary> {
        let mut submission = Submission::new(spec);
        submission.initial = initial;
        self.submit_once(caller, submission)
    }

    /// Some of the jobs that are remembered, in order of their numbers: those after this one, at most `limit` of them and at
    /// least one if there is one; job 0 is before the first.
    ///
    /// # Errors
    ///
    /// [`OperatorError`], as for every method.
    fn jobs_page<'a>(
        &'a self,
        caller: &'a Caller,
        after: JobId,
        limit: usize,
    ) -> Answer<'a, Page<JobSummary, JobId>>;

    /// One job.
    ///
    /// # Errors
    ///
    /// [`UnknownJob`](crate::report::RefusalKind::UnknownJob), here and below.
    fn job<'a>(&'a self, caller: &'a Caller, job: JobId) -> Answer<'a, JobSummary>;

    /// Some of the records of a job's rounds that have ended, in order: those of rounds after this one, at most `limit` of
    /// them and at least one if there is one; round 0 is before the first.
    ///
    /// # Errors
    ///
    /// As [`Operator::job`], and [`Storage`](crate::report::RefusalKind::Storage) if they can't be read.
    fn rounds_page<'a>(
        &'a self,
        caller: &'a Caller,
        job: JobId,
        after: RoundId,
        limit: usize,
    ) -> Answer<'a, Page<RoundRecord, RoundId>>;

    /// Ends a job.
    ///
    /// # Errors
    ///
    /// As [`Operator::job`], and [`Conflict`](crate::report::RefusalKind::Conflict) if it has ended.
    fn cancel<'a>(&'a self, caller: &'a Caller, job: JobId) -> Answer<'a, JobSummary>;

    /// Lets no further round of a job begin (`paused`), or lets rounds begin again. The open round goes on either way.
    ///
    /// # Errors
    ///
    /// As [`Operator::job`], and [`Conflict`](crate::report::RefusalKind::Conflict) if it has ended or has not started.
    fn pause<'a>(&'a self, caller: &'a Caller, job: JobId, paused: bool) -> Answer<'a, JobSummary>;

    /// Forgets a job that has ended, with its log, its records and its model. The answer is its last summary.
    ///
    /// # Errors
    ///
    /// As [`Operator::job`], and [`Conflict`](crate::report::RefusalKind::Conflict) if it has not ended.
    fn delete<'a>(&'a self, caller: &'a Caller, job: JobId) -> Answer<'a, JobSummary>;

    /// The entries of a job's event log after the one with this number: those that are there, then new ones as they
    /// come. The stream ends after the job's last, or if the coordinator stops.
    ///
    /// # Errors
    ///
    /// As [`Operator::job`].
    fn events<'a>(&'a self, caller: &'a Caller, job: JobId, after: u64) -> Answer<'a, Events>;

    /// Some of the workers, live and gone, in order of their numbers: those after this one, at most `limit` of them and at
    /// least one if there is one; worker 0 is before the first.
    ///
    /// # Errors
    ///
    /// [`OperatorError`], as for every method.
    fn workers_page<'a>(
        &'a self,
        caller: &'a Caller,
        after: WorkerId,
        limit: usize,
    ) -> Answer<'a, Page<WorkerSummary, WorkerId>>;

    /// The global model of this version as it is kept (f32, whatever the job sends); the latest, if none is named.
    ///
    /// # Errors
    ///
    /// As [`Operator::job`]; [`NotFound`](crate::report::RefusalKind::NotFound) for a version that never was, and
    /// [`Gone`](crate::report::RefusalKind::Gone) for one that is not kept.
    fn model_body<'a>(
        &'a self,
        caller: &'a Caller,
        job: JobId,
        version: Option<ModelVersion>,
    ) -> Answer<'a, (ModelVersion, ModelBody)>;

    /// Makes a token for operators or for workers that join. The answer is the only place that has the secret.
    ///
    /// # Errors
    ///
    /// [`Malformed`](crate::report::RefusalKind::Malformed), and [`Busy`](crate::report::RefusalKind::Busy) if there are too
    /// many. The methods from here to [`Operator::audit_page`] need the scope `admin`; an operator that has no tokens answers
    /// [`NotFound`](crate::report::RefusalKind::NotFound), which is their default.
    fn create_token<'a>(&'a self, caller: &'a Caller, new: NewToken) -> Answer<'a, CreatedToken> {
        let _ = (caller, new);
        without_tokens()
    }

    /// The tokens, in order of their numbers: those that count, and some that have ended.
    ///
    /// # Errors
    ///
    /// As [`Operator::create_token`].
    fn tokens<'a>(&'a self, caller: &'a Caller) -> Answer<'a, Vec<TokenSummary>> {
        let _ = caller;
        without_tokens()
    }

    /// Revokes a token: it is refused from now on. Workers that joined with it stay.
    ///
    /// # Errors
    ///
    /// As [`Operator::create_token`]; [`NotFound`](crate::report::RefusalKind::NotFound) if there is none of this number.
    fn revoke_token<'a>(&'a self, caller: &'a Caller, token: TokenId) -> Answer<'a, TokenSummary> {
        let _ = (caller, token);
        without_tokens()
    }

    /// Revokes a worker's own token: its clients go to others, and it has to register again. Its name is free for whoever joins
    /// next.
    ///
    /// # Errors
    ///
    /// As [`Operator::revoke_token`], here and in the next one.
    fn revoke_worker<'a>(
        &'a self,
        caller: &'a Caller,
        worker: WorkerId,
    ) -> Answer<'a, WorkerSummary> {
        let _ = (caller, worker);
        without_tokens()
    }

    /// Lets a worker in that waits for it, or that is in quarantine.
    fn approve_worker<'a>(
        &'a self,
        caller: &'a Caller,
        worker: WorkerId,
    ) -> Answer<'a, WorkerSummary> {
        let _ = (caller, worker);
        without_tokens()
    }

    /// Some of the audit's entries, in order: those after this one, at most `limit` of them and at least one if there is one;
    /// number 0 is before the first.
    ///
    /// # Errors
    ///
    /// As [`Operator::create_token`], and [`Storage`](crate::report::RefusalKind::Storage) if they can't be read.
    fn audit_page<'a>(
        &'a self,
        caller: &'a Caller,
        after: u64,
        limit: usize,
    ) -> Answer<'a, Page<AuditEntry, u64>> {
        let _ = (caller, after, limit);
        without_tokens()
    }

    /// Whether the coordinator is well. Everybody may ask, so the answer names no worker and no job.
    ///
    /// # Errors
    ///
    /// [`OperatorError::Transport`] if there is no answer.
    fn health<'a>(&'a self) -> Answer<'a, Health>;

    /// Checks that this is still the coordinator of this identity, as [`Operator::health`] told it before: after a connection
    /// that broke, a job's number may be another job's. An empty identity, as of coordinators of version 0.1, can't be checked.
    ///
    /// # Errors
    ///
    /// [`OperatorError::OtherCoordinator`], and [`OperatorError::Transport`] if there is no answer.
    fn check_coordinator<'a>(&'a self, expected: &'a CoordinatorId) -> Answer<'a, ()> {
        Box::pin(async move {
            if expected.0.is_empty() {
                return Ok(());
            }
            let found = self.health().await?.coordinator;
            if found == *expected {
                return Ok(());
            }
            Err(OperatorError::OtherCoordinator {
                expected: expected.clone(),
                found,
            })
        })
    }

    /// All jobs that are remembered, in order of their numbers, read page by page.
    ///
    /// # Errors
    ///
    /// As [`Operator::jobs_page`].
    fn jobs<'a>(&'a self, caller: &'a Caller) -> Answer<'a, Vec<JobSummary>> {
        Box::pin(all(JobId(0), move |after| {
            self.jobs_page(caller, after, PAGE)
        }))
    }

    /// The records of a job's rounds after this one, in order, read page by page.
    ///
    /// # Errors
    ///
    /// As [`Operator::rounds_page`].
    fn rounds<'a>(
        &'a self,
        caller: &'a Caller,
        job: JobId,
        after: RoundId,
    ) -> Answer<'a, Vec<RoundRecord>> {
        Box::pin(all(after, move |after| {
            self.rounds_page(caller, job, after, PAGE)
        }))
    }

    /// All workers, live and gone, in order of their numbers, read page by page.
    ///
    /// # Errors
    ///
    /// As [`Operator::workers_page`].
    fn workers<'a>(&'a self, caller: &'a Caller) -> Answer<'a, Vec<WorkerSummary>> {
        Box::pin(all(WorkerId(0), move |after| {
            self.workers_page(caller, after, PAGE)
        }))
    }

    /// The audit's entries after this one, in order, read page by page.
    ///
    /// # Errors
    ///
    /// As [`Operator::audit_page`].
    fn audit<'a>(&'a self, caller: &'a Caller, after: u64) -> Answer<'a, Vec<AuditEntry>> {
        Box::pin(all(after, move |after| {
            self.audit_page(caller, after, PAGE)
        }))
    }

    /// Waits until a job has ended, however it does: [`JobSummary::outcome`] says.
    ///
    /// # Errors
    ///
    /// As [`Operator::job`]; [`OperatorError::Transport`] if the coordinator can't be reached any more. The job then goes
    /// on, and may be waited for again, after [`Operator::check_coordinator`]. [`OperatorError::OtherCoordinator`] if the
    /// connection broke, and another coordinator answers now.
    fn wait<'a>(&'a self, caller: &'a Caller, job: JobId) -> Answer<'a, JobSummary> {
        Box::pin(async move {
            let coordinator = self.health().await?.coordinator;
            let mut last = 0;
            loop {
                let summary = self.job(caller, job).await?;
                if summary.outcome.is_some() {
                    return Ok(summary);
                }
                let before = last;
                // After the last event that came: the stream before may have broken off.
                let mut events = self.events(caller, job, last).await?;
                while let Some(event) = events.next().await {
                    last = event?.sequence;
                }
                // They may have ended because the coordinator did, and another one has its address now.
                self.check_coordinator(&coordinator).await?;
                // Events that end at once, as behind a proxy that cuts them, would otherwise be asked for without a
                // pause.
                if last == before {
                    sleep(PAUSE).await;
                }
            }
        })
    }

    /// The global model of this version, or the latest, in memory.
    ///
    /// # Errors
    ///
    /// As [`Operator::model_body`], and [`OperatorError::Body`] if it does not come whole.
    fn model<'a>(
        &'a self,
        caller: &'a Caller,
        job: JobId,
        version: Option<ModelVersion>,
    ) -> Answer<'a, Arc<Parameters>> {
        Box::pin(async move {
            let (_, body) = self.model_body(caller, job, version).await?;
            Ok(body.collect(Encoding::F32, None).await?)
        })
    }

    /// Writes the global model of this version, or the latest, as the safetensors file that it is. Returns its version and
    /// its length in bytes. What is written before an error is not a model.
    ///
    /// # Errors
    ///
    /// As [`Operator::model`], and [`OperatorError::Write`].
    fn download<'a>(
        &'a self,
        caller: &'a Caller,
        job: JobId,
        version: Option<ModelVersion>,
        file: &'a mut (dyn Write + Send),
    ) -> Answer<'a, (ModelVersion, u64)> {
        Box::pin(async move {
            let (version, body) = self.model_body(caller, job, version).await?;
            let mut length = 0;
            let mut pieces = body.checked_bytes();
            while let Some(piece) = pieces.next().await {
                let piece = piece?;
                file.write_all(&piece).map_err(OperatorError::Write)?;
                length += piece.len() as u64;
            }
            // A buffered file that is dropped hides the error of its last write.
            file.flush().map_err(OperatorError::Write)?;
            Ok((version, length))
        })
    }

    /// The records of a job's rounds after this one, each once and in order, as soon as nothing more will be added to it:
    /// when its version is evaluated, or a later one is, or nobody evaluates, or the job has ended. Ends with the job.
    fn records<'a>(&'a self, caller: &'a Caller, job: JobId, after: RoundId) -> Records<'a> {
        let reader = Reader {
            operator: self,
            caller,
            job,
            after,
            coordinator: None,
            last_event: 0,
            events: None,
            ready: VecDeque::new(),
            is_done: false,
        };
        Box::pin(stream::unfold(reader, Reader::next))
    }
}

/// Reads the records of a job's rounds as they are complete.
struct Reader<'a, O: ?Sized> {
    operator: &'a O,
    caller: &'a Caller,
    job: JobId,
    /// The round of the last record that was handed out.
    after: RoundId,
    /// Who the coordinator is; none before the first request.
    coordinator: Option<CoordinatorId>,
    last_event: u64,
    events: Option<Events>,
    ready: VecDeque<RoundRecord>,
    is_done: bool,
}

impl<O: Operator + ?Sized> Reader<'_, O> {
    async fn next(mut self) -> Option<(Result<RoundRecord, OperatorError>, Self)> {
        loop {
            if let Some(record) = self.ready.pop_front() {
                return Some((Ok(record), self));
            }
            if self.is_done {
                return None;
            }
            if let Err(error) = self.advance().await {
                self.is_done = true;
                return Some((Err(error), self));
            }
        }
    }

    /// Takes the records that are complete; if there are none, waits for something to happen.
    async fn advance(&mut self) -> Result<(), OperatorError> {
        if self.coordinator.is_none() {
            self.coordinator = Some(self.operator.health().await?.coordinator);
        }
        // Asked for before the records: if the job had ended by then, they are all there.
        let summary = self.operator.job(self.caller, self.job).await?;
        let is_evaluated = summary.spec.evaluation != EvaluationMode::Never;
        let is_open = summary.outcome.is_none() && is_evaluated;
        let (records, is_last) = self.complete_records(is_open).await?;
        if let Some(last) = records.last() {
            self.after = last.round;
        }
        self.is_done = is_last && summary.outcome.is_some();
        self.ready.extend(records);
        if self.ready.is_empty() && !self.is_done {
            self.wait().await?;
        }
        Ok(())
    }

    /// The first page of the next records, as far as they are complete, and whether there is no further page. More pages
    /// are looked at only if nothing on the first is complete: the record that completes it can be on the next.
    async fn complete_records(
        &mut self,
        is_open: bool,
    ) -> Result<(Vec<RoundRecord>, bool), OperatorError> {
        let mut records = Vec::new();
        let mut after = self.after;
        loop {
            let rounds = self
                .operator
                .rounds_page(self.caller, self.job, after, PAGE);
            let page = rounds.await?;
            records.extend(page.entries);
            let count = if is_open {
                complete(&records)
            } else {
                records.len()
            };
            match page.next {
                Some(next) if count == 0 && next > after => after = next,
                next => {
                    records.truncate(count);
                    return Ok((records, next.is_none()));
                }
            }
        }
    }

    /// Waits until a round has ended, a version was evaluated, or the events have ended.
    async fn wait(&mut self) -> Result<(), OperatorError> {
        if self.events.is_none() {
            let events = self.operator.events(self.caller, self.job, self.last_event);
            self.events = Some(events.await?);
        }
        while let Some(events) = &mut self.events {
            let Some(event) = events.next().await else {
                self.events = None;
                sleep(PAUSE).await;
                if let Some(coordinator) = &self.coordinator {
                    self.operator.check_coordinator(coordinator).await?;
                }
                break;
            };
            let LoggedEvent {
                sequence, event, ..
            } = event?;
            self.last_event = sequence;
            // Nothing else completes a record. To look after each event would ask for the records once for each report.
            if matches!(
                event,
                JobEvent::RoundCommitted { .. }
                    | JobEvent::RoundAbandoned { .. }
                    | JobEvent::Evaluated { .. }
                    | JobEvent::Ended(_)
            ) {
                break;
            }
        }
        Ok(())
    }
}

/// How many of these records nothing more will be added to, in a job that is evaluated: those up to the last that is
/// evaluated or abandoned, but none that waits for its own evaluation behind all others.
fn complete(records: &[RoundRecord]) -> usize {
    let evaluated = records
        .iter()
        .rposition(|record| record.test_loss.is_some());
    let mut count = evaluated.map_or(0, |index| index + 1);
    while records
        .get(count)
        .is_some_and(|record| record.abandoned.is_some())
    {
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests;
