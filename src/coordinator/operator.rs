//! What operators may ask for.

use std::{collections::VecDeque, sync::Arc};

use futures_util::{Stream, stream};

use super::{Coordinator, job::Job};
use crate::{
    ids::{JobId, ModelVersion},
    job::{EvaluationMode, JobError, JobSpec, StrategySpec},
    parameters::Parameters,
    report::{Refusal, RefusalKind},
    round::{EvaluationBy, Event, Response},
    strategy::FederatedStrategy,
    telemetry::{Health, JobSummary, LoggedEvent, RoundRecord, WorkerSummary},
    transport::{Operator, PROTOCOL, Token},
    worker::TrainError,
};

impl Coordinator {
    /// Whether this token is an operator's.
    ///
    /// # Errors
    ///
    /// [`RefusalKind::Unauthorized`] where a join token is configured and this is not it.
    pub fn authorize(&self, token: Option<&Token>) -> Result<(), Refusal> {
        match (&self.0.config.join_token, token) {
            (None, _) => Ok(()),
            (Some(expected), Some(token)) if expected.matches(token) => Ok(()),
            (Some(_), _) => Err(Refusal::new(
                RefusalKind::Unauthorized,
                "the join token is missing or wrong",
            )),
        }
    }

    /// Takes a job into the queue. Its initial model is drawn from its seed, or is the one given.
    ///
    /// # Errors
    ///
    /// [`RefusalKind::InvalidJob`] says what can't run here, [`RefusalKind::Busy`] that the queue is full.
    pub fn submit(
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
        let strategy = self.make_strategy(&spec)?;
        let evaluation = self.evaluation(&spec, has_data.is_ok())?;

        let now = self.now();
        let mut state = self.state();
        if state.queue.len() >= self.0.config.max_queued {
            return Err(Refusal::new(
                RefusalKind::Busy,
                format!("{} jobs are waiting already", state.queue.len()),
            ));
        }
        let id = state.next_job();
        let job = Job::new(
            id,
            spec,
            Arc::new(initial),
            strategy,
            evaluation,
            self.0.config.keep_events,
            now,
        );
        state.jobs.insert(id, job);
        state.queue.push_back(id);
        self.start_next(&mut state);
        Ok(state.job(id)?.summary())
    }

    fn initial(&self, spec: &JobSpec, given: Option<Parameters>) -> Result<Parameters, Refusal> {
        match (self.0.trainers.initial(spec), given) {
            (Ok(drawn), None) => Ok(drawn),
            (Ok(drawn), Some(given)) => {
                let differs = drawn.layout().check_same(given.layout());
                differs.map_err(|error| {
                    invalid(&JobError::new(
                        "initial",
                        format!("does not fit the model: {error}"),
                    ))
                })?;
                // Roles are the factory's to say.
                Parameters::new(drawn.layout().clone(), given.into_values())
                    .map_err(|error| invalid(&JobError::new("initial", error.to_string())))
            }
            (Err(TrainError::UnknownModel { .. }), Some(given)) => Ok(given),
            (Err(error @ TrainError::UnknownModel { .. }), None) => {
                let problem =
                    format!("can't be initialised: {error}; an initial model can be given instead");
                Err(invalid(&JobError::new("model", problem)))
            }
            (Err(error @ TrainError::UnknownDataset { .. }), None) => {
                Err(invalid(&JobError::new("dataset", error.to_string())))
            }
            (Err(error), None) => Err(invalid(&JobError::new("model", error.to_string()))),
            (Err(_), Some(given)) => Ok(given),
        }
    }

    pub(super) fn make_strategy(
        &self,
        spec: &JobSpec,
    ) -> Result<Box<dyn FederatedStrategy>, Refusal> {
        if let Some(strategy) = spec.strategy.build() {
            return Ok(strategy);
        }
        let StrategySpec::Custom { name } = &spec.strategy else {
            return Err(invalid(&JobError::new("strategy", "is not known here")));
        };
        match self.0.strategies.get(name) {
            Some(factory) => Ok(factory(spec)),
            None => Err(invalid(&JobError::new(
                "strategy",
                format!("{name:?} is not known here"),
            ))),
        }
    }

    fn evaluation(&self, spec: &JobSpec, has_data: bool) -> Result<EvaluationBy, Refusal> {
        let here = || match has_data {
            true => self
                .0
                .trainers
                .trainer(spec)
                .map(drop)
                .map_err(|error| error.to_string()),
            false => Err(format!("the coordinator has no dataset {:?}", spec.dataset)),
        };
        Ok(match spec.evaluation {
            EvaluationMode::Never => EvaluationBy::Nobody,
            EvaluationMode::Workers => EvaluationBy::Workers,
            EvaluationMode::Auto => here().map_or(EvaluationBy::Workers, |()| EvaluationBy::Driver),
            EvaluationMode::Coordinator => match here() {
                Ok(()) => EvaluationBy::Driver,
                Err(reason) => {
                    return Err(invalid(&JobError::new(
                        "evaluation",
                        format!("is not possible here: {reason}"),
                    )));
                }
            },
        })
    }

    /// All jobs that are remembered, in order of submission.
    pub fn jobs(&self) -> Vec<JobSummary> {
        self.state().jobs.values().map(Job::summary).collect()
    }

    /// One job.
    ///
    /// # Errors
    ///
    /// [`RefusalKind::UnknownJob`].
    pub fn job(&self, job: JobId) -> Result<JobSummary, Refusal> {
        Ok(self.state().job(job)?.summary())
    }

    /// The records of a job's rounds, in order.
    ///
    /// # Errors
    ///
    /// [`RefusalKind::UnknownJob`].
    pub fn rounds(&self, job: JobId) -> Result<Vec<RoundRecord>, Refusal> {
        Ok(self.state().job(job)?.records.clone())
    }

    /// Ends a job that waits or runs.
    ///
    /// # Errors
    ///
    /// [`RefusalKind::UnknownJob`]; [`RefusalKind::Conflict`] where it has ended already.
    pub fn cancel(&self, job: JobId) -> Result<JobSummary, Refusal> {
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

    /// A job's log from after this place on: what has happened, then what happens, up to the job's end.
    ///
    /// # Errors
    ///
    /// [`RefusalKind::UnknownJob`].
    pub fn events(
        &self,
        job: JobId,
        after: u64,
    ) -> Result<impl Stream<Item = LoggedEvent> + Send + use<>, Refusal> {
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

    fn log_after(&self, job: JobId, after: u64, limit: usize) -> VecDeque<LoggedEvent> {
        let state = self.state();
        let Ok(job) = state.job(job) else {
            return VecDeque::new();
        };
        let start = job.log.partition_point(|event| event.sequence <= after);
        job.log.iter().skip(start).take(limit).cloned().collect()
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

    /// All workers that are remembered, in order of registration.
    pub fn workers(&self) -> Vec<WorkerSummary> {
        let state = self.state();
        let machine = state
            .running
            .and_then(|job| state.jobs.get(&job))
            .and_then(|job| job.machine.as_ref());
        let summary =
            |(worker, record): (_, &crate::round::WorkerRecord<super::state::WorkerInfo>)| {
                WorkerSummary {
                    worker,
                    registration: record.info.registration.clone(),
                    state: record.state,
                    registered: record.registered,
                    last_seen: record.last_seen,
                    clients: machine.map_or(0, |machine| machine.clients_of(worker)),
                }
            };
        state.roster.iter().map(summary).collect()
    }

    /// A model of a job, the latest where no version is named.
    ///
    /// # Errors
    ///
    /// [`RefusalKind::UnknownJob`], [`RefusalKind::NotFound`], [`RefusalKind::Gone`].
    pub fn model(
        &self,
        job: JobId,
        version: Option<ModelVersion>,
    ) -> Result<(ModelVersion, Arc<Parameters>), Refusal> {
        self.state().job(job)?.model(version)
    }

    /// Whether it is well.
    pub fn health(&self) -> Health {
        let state = self.state();
        Health {
            version: env!("CARGO_PKG_VERSION").to_string(),
            protocol: PROTOCOL,
            workers: state.roster.live().count(),
            running: state.running,
            queued: state.queue.len(),
        }
    }
}

fn invalid(error: &JobError) -> Refusal {
    Refusal::new(RefusalKind::InvalidJob, error.to_string())
}

/// The same, as a transport's operator routes call it.
impl Operator for Coordinator {
    fn authorize(&self, token: Option<&Token>) -> Result<(), Refusal> {
        self.authorize(token)
    }

    fn submit(&self, spec: JobSpec, initial: Option<Parameters>) -> Result<JobSummary, Refusal> {
        self.submit(spec, initial)
    }

    fn jobs(&self) -> Vec<JobSummary> {
        self.jobs()
    }

    fn job(&self, job: JobId) -> Result<JobSummary, Refusal> {
        self.job(job)
    }

    fn rounds(&self, job: JobId) -> Result<Vec<RoundRecord>, Refusal> {
        self.rounds(job)
    }

    async fn cancel(&self, job: JobId) -> Result<JobSummary, Refusal> {
        self.cancel(job)
    }

    fn events(
        &self,
        job: JobId,
        after: u64,
    ) -> Result<impl Stream<Item = LoggedEvent> + Send + 'static, Refusal> {
        self.events(job, after)
    }

    fn workers(&self) -> Vec<WorkerSummary> {
        self.workers()
    }

    fn model(
        &self,
        job: JobId,
        version: Option<ModelVersion>,
    ) -> Result<(ModelVersion, Arc<Parameters>), Refusal> {
        self.model(job, version)
    }

    fn health(&self) -> Health {
        self.health()
    }
}
