//! What operators may ask for. [`super::submission`] has what it takes to accept a job.

use std::{collections::VecDeque, sync::Arc};

use futures_util::{Stream, stream};

use super::{
    Coordinator,
    job::Job,
    submission::{check_encodings, invalid},
};
use crate::{
    ids::{JobId, ModelVersion},
    job::{JobError, JobSpec},
    panics,
    parameters::{Parameters, StoredBody},
    report::{Refusal, RefusalKind},
    round::{Event, Response},
    telemetry::{Health, JobSummary, LoggedEvent, RoundRecord, WorkerSummary},
    transport::{Operator, PROTOCOL, Registration, Token},
};

impl Operator for Coordinator {
    fn authorize(&self, token: Option<&Token>) -> Result<(), Refusal> {
        match (&self.0.config.join_token, token) {
            (None, _) => Ok(()),
            (Some(expected), Some(token)) if expected.matches(token) => Ok(()),
            (Some(_), _) => Err(Refusal::new(
                RefusalKind::Unauthorized,
                "the join token is missing or wrong",
            )),
        }
    }

    fn submit(&self, spec: JobSpec, initial: Option<Parameters>) -> Result<JobSummary, Refusal> {
        // Factories are an embedder's own code, which may panic.
        let submitted = panics::caught(|| self.try_submit(spec, initial));
        submitted.unwrap_or_else(|panic| {
            let detail = format!("the job can't be prepared: a panic: {panic}");
            Err(Refusal::new(RefusalKind::InvalidJob, detail))
        })
    }

    fn jobs(&self) -> Vec<JobSummary> {
        self.state().jobs.values().map(Job::summary).collect()
    }

    fn job(&self, job: JobId) -> Result<JobSummary, Refusal> {
        Ok(self.state().job(job)?.summary())
    }

    fn rounds(&self, job: JobId) -> Result<Vec<RoundRecord>, Refusal> {
        Ok(self.state().job(job)?.records.clone())
    }

    async fn cancel(&self, job: JobId) -> Result<JobSummary, Refusal> {
        let mut state = self.state();
        self.give_machine(&mut state, job)?;
        let request = state.next_request();
        if let Some(Response::Refused(refusal)) =
            self.drive(&mut state, job, Event::Cancelled { request })
        {
            return Err(refusal);
        }
        Ok(state.job(job)?.summary())
    }

    fn events(
        &self,
        job: JobId,
        after: u64,
    ) -> Result<impl Stream<Item = LoggedEvent> + Send + 'static, Refusal> {
        const AT_ONCE: usize = 256;
        let progress = self.state().job(job)?.progress.subscribe();
        let start = (self.clone(), progress, after, VecDeque::new());
        Ok(stream::unfold(
            start,
            move |(coordinator, mut progress, mut after, mut ready)| async move {
                loop {
                    if let Some(event) = ready.pop_front() {
                        let event: LoggedEvent = event;
                        after = event.sequence;
                        return Some((event, (coordinator, progress, after, ready)));
                    }
                    let seen = *progress.borrow_and_update();
                    ready = coordinator.log_after(job, after, AT_ONCE);
                    if ready.is_empty() && (seen.ended || progress.changed().await.is_err()) {
                        return None;
                    }
                }
            },
        ))
    }

    fn workers(&self) -> Vec<WorkerSummary> {
        let state = self.state();
        let job = state.running.and_then(|job| state.jobs.get(&job));
        let machine = job.and_then(|job| job.machine.as_ref());
        let summary =
            |(worker, record): (_, &crate::round::WorkerRecord<super::state::WorkerInfo>)| {
                let speeds = &record.info.speeds;
                WorkerSummary {
                    worker,
                    registration: Registration::clone(&record.info.registration),
                    state: record.state,
                    registered: record.registered,
                    last_seen: record.last_seen,
                    clients: machine.map_or(0, |machine| machine.clients_of(worker)),
                    examples_per_second: match job {
                        Some(job) => speeds.of(&job.spec.model, &job.spec.dataset),
                        None => speeds.latest(),
                    },
                }
            };
        state.roster.iter().map(summary).collect()
    }

    fn model(
        &self,
        job: JobId,
        version: Option<ModelVersion>,
    ) -> Result<(ModelVersion, Arc<dyn StoredBody>), Refusal> {
        let (version, model) = self.state().job(job)?.model(version)?;
        Ok((version, model.file()))
    }

    fn health(&self) -> Health {
        let state = self.state();
        Health {
            version: env!("CARGO_PKG_VERSION").to_string(),
            protocol: PROTOCOL,
            workers: state.roster.live_count(),
            running: state.running,
            queued: state.queue.len(),
        }
    }
}

impl Coordinator {
    fn try_submit(
        &self,
        spec: JobSpec,
        initial: Option<Parameters>,
    ) -> Result<JobSummary, Refusal> {
        spec.validate().map_err(|error| invalid(&error))?;
        spec.partition
            .validate()
            .map_err(|error| invalid(&JobError::new("partition", error.to_string())))?;
        let has_data = self.0.trainers.dataset(&spec.dataset);
        if spec.partition.needs_labels()
            && let Err(error) = self.0.trainers.labels(&spec.dataset)
        {
            let problem =
                format!("needs the labels of the training examples, which are not here: {error}");
            return Err(invalid(&JobError::new("partition", problem)));
        }
        let initial = self.initial(&spec, initial)?;
        let strategy = self.make_strategy(&spec, initial.layout())?;
        let evaluation = self.evaluation(&spec, has_data.is_ok())?;

        let id = {
            let mut state = self.state();
            self.check_queue(&state)?;
            state.next_job()
        };
        let initial = self.keep_initial(id, &spec, &initial, &strategy.state)?;
        let now = self.now();
        let mut job = Job::new(
            id,
            spec,
            initial,
            strategy,
            evaluation,
            self.0.config.keep_events,
            now,
        );
        if let (Ok(dataset), false) = (has_data, job.spec.partition.is_local()) {
            // Known before the data is dealt, so that no worker with another copy is counted on.
            job.fingerprint = dataset.fingerprint;
        }
        let mut state = self.state();
        let room = self
            .check_queue(&state)
            .and_then(|()| check_encodings(&state, &job));
        if let Err(refusal) = room {
            drop(state);
            self.0.models.remove(id, None);
            return Err(refusal);
        }
        state.jobs.insert(id, job);
        state.queue.push_back(id);
        self.start_next(&mut state);
        Ok(state.job(id)?.summary())
    }

    /// Waits for a job's end.
    ///
    /// # Errors
    ///
    /// [`RefusalKind::UnknownJob`].
    pub async fn finished(&self, job: JobId) -> Result<JobSummary, Refusal> {
        let mut progress = self.state().job(job)?.progress.subscribe();
        // An error means that the job is not remembered any more, which the next line says.
        let _ = progress.wait_for(|progress| progress.ended).await;
        self.job(job)
    }

    /// The whole log that is kept of a job.
    ///
    /// # Errors
    ///
    /// [`RefusalKind::UnknownJob`].
    pub fn log(&self, job: JobId) -> Result<Vec<LoggedEvent>, Refusal> {
        Ok(self.state().job(job)?.log.iter().cloned().collect())
    }

    fn log_after(&self, job: JobId, after: u64, limit: usize) -> VecDeque<LoggedEvent> {
        let state = self.state();
        let Ok(job) = state.job(job) else {
            return VecDeque::new();
        };
        let start = job.log.partition_point(|event| event.sequence <= after);
        job.log.iter().skip(start).take(limit).cloned().collect()
    }
}
