//! Whether a job can run here, and what it starts with.

use std::sync::Arc;

use super::{
    fold::model_form,
    handle::Coordinator,
    job::{Job, KeptInitial, PreparedStrategy},
    state::State,
    training_pool::TrainingPool,
};
use crate::{
    ids::{JobId, ModelVersion},
    job::{EvaluationMode, JobError, JobSpec, Settings, StrategySpec},
    panics,
    parameters::{BlockError, Digest, Layout, Parameters},
    partition,
    protocol::DatasetInfo,
    report::{Refusal, RefusalKind},
    round::EvaluationBy,
    spelling,
    store::{ModelWriter, StoreError, StoredModel},
    strategy::{FederatedStrategy, Initial, Seeds, StateSpec},
    worker::TrainError,
};

impl Coordinator {
    /// The initial model, with the roles that the job gives its tensors.
    pub(super) fn initial(
        &self,
        spec: &JobSpec,
        given: Option<Arc<Parameters>>,
    ) -> Result<Arc<Parameters>, Refusal> {
        let model = self.model(spec, given)?;
        let layout = spec.layout_of(model.layout());
        let layout = layout.map_err(|error| invalid(&error))?;
        if layout == *model.layout() {
            return Ok(model);
        }
        let values = Arc::unwrap_or_clone(model).into_values();
        Parameters::new(layout, values)
            .map(Arc::new)
            .map_err(|error| invalid(&JobError::new("initial", error.to_string())))
    }

    /// The model that was given, or else drawn from the seed.
    fn model(
        &self,
        spec: &JobSpec,
        given: Option<Arc<Parameters>>,
    ) -> Result<Arc<Parameters>, Refusal> {
        match (self.0.trainers.initial(&spec.description()), given) {
            (Ok(drawn), None) => Ok(Arc::new(drawn)),
            (Ok(drawn), Some(given)) => {
                let differs = drawn.layout().check_same(given.layout());
                differs.map_err(|error| {
                    invalid(&JobError::new(
                        "initial",
                        format!("does not fit the model: {error}"),
                    ))
                })?;
                // The factory says which tensors are buffers or frozen. A file's own roles are for information.
                // Not copied if nobody else holds it: a model can have gigabytes.
                let values = Arc::unwrap_or_clone(given).into_values();
                Parameters::new(drawn.layout().clone(), values)
                    .map(Arc::new)
                    .map_err(|error| invalid(&JobError::new("initial", error.to_string())))
            }
            // The workers may know a model that the coordinator does not.
            (
                Err(TrainError::UnknownModel { .. } | TrainError::UnknownDataset { .. }),
                Some(given),
            ) => Ok(given),
            (Err(error @ TrainError::UnknownModel { .. }), None) => {
                let problem =
                    format!("can't be initialised: {error}; an initial model can be given instead");
                Err(invalid(&JobError::new("model", problem)))
            }
            (Err(error @ TrainError::UnknownDataset { .. }), None) => Err(invalid(&JobError::new(
                "dataset",
                format!("is refused: {error}"),
            ))),
            (Err(error), _) => Err(invalid(&JobError::new(
                "model",
                format!("is refused: {error}"),
            ))),
        }
    }

    /// Version 0 of a job's model and of its strategy's state, kept where models are. The state is that of `from`, a version of a
    /// job with the same strategy, or else as it is before the first round.
    pub(super) fn keep_initial(
        &self,
        id: JobId,
        spec: &JobSpec,
        initial: &Parameters,
        state: &StateSpec,
        from: Option<&dyn StoredModel>,
    ) -> Result<KeptInitial, Refusal> {
        let layout = initial.layout();
        if !spec.encoding.reports.is_dense() && u32::try_from(layout.len()).is_err() {
            let problem = "can't be top_k: the model has more parameters than 32 bits can number";
            return Err(invalid(&JobError::new("encoding.reports", problem)));
        }
        let form = model_form(layout, spec.encoding.models, state);
        let begun = self.0.models.begin(id, ModelVersion(0), &form);
        let mut writer = begun.map_err(|error| not_kept(&error))?;
        write_initial(&mut *writer, initial, state, from).map_err(|error| not_kept(&error))?;
        let numbers = from.map_or(&state.numbers, StoredModel::numbers);
        let published = writer.publish(numbers);
        Ok(KeptInitial {
            model: published.map_err(|error| match error {
                // Values that the encoding can't write are a mistake of the job; all else is the storage's.
                StoreError::Encoding(problem) => {
                    invalid(&JobError::new("encoding.models", problem))
                }
                error => not_kept(&error),
            })?,
            digest: Digest::of(bytemuck::cast_slice(initial.values())),
        })
    }

    /// Whether the data can be dealt to this many clients, as far as it is known before the job starts. Costs no more for
    /// many clients than for few.
    pub(super) fn check_clients(
        &self,
        spec: &JobSpec,
        dataset: Option<&DatasetInfo>,
    ) -> Result<(), Refusal> {
        // Partitions and leases take memory for each client once the job starts.
        let most = self.0.config.jobs.max_clients;
        if let Some(clients) = spec.clients.filter(|clients| *clients > most) {
            let problem = format!("is {clients}, and {most} is the most here");
            return Err(invalid(&JobError::new("clients", problem)));
        }
        if spec.partition.is_local() {
            // Workers' own data is not dealt. How many clients there are is known at the start.
            return Ok(());
        }
        let mut labels = None;
        if spec.partition.needs_labels() {
            let found = self.0.trainers.labels(&spec.dataset);
            labels = Some(found.map_err(|error| {
                let problem = format!(
                    "needs the labels of the training examples, which are not here: {error}"
                );
                invalid(&JobError::new("partition", problem))
            })?);
        }
        // Without a number there is a client for each worker that is there at the start: not known yet.
        let Some(clients) = spec.clients else {
            return Ok(());
        };
        let count = match dataset {
            Some(dataset) => Some(dataset.train_examples),
            // The largest copy, so that no job is refused here that could run.
            None => self.state().most_examples(&spec.dataset),
        };
        let count = match (&labels, count) {
            (Some(labels), _) => labels.len(),
            (None, Some(count)) => count as usize,
            // Nobody has it yet: the first worker that does will tell.
            (None, None) => return Ok(()),
        };
        let pool = TrainingPool::new(spec, count, labels.as_deref());
        let pool =
            pool.map_err(|error| invalid(&JobError::new("validation", error.to_string())))?;
        let checked = partition::check(&spec.partition, pool.examples(), clients as usize);
        checked.map_err(|error| {
            let problem = format!(
                "{} does not go with {clients} clients: {error}",
                spec.partition
            );
            invalid(&JobError::new("partition", problem))
        })
    }

    /// Whether one more job may wait.
    pub(super) fn check_queue(&self, state: &State) -> Result<(), Refusal> {
        if state.queue.len() < self.0.config.jobs.max_queued {
            Ok(())
        } else {
            let detail = format!(
                "{} jobs are waiting already, and that is the most (--max-queued): submit it again when one has ended",
                state.queue.len()
            );
            Err(Refusal::new(RefusalKind::Busy, detail))
        }
    }

    /// The job's strategy, what it keeps between rounds, and the seeds of its draws.
    pub(super) fn make_strategy(
        &self,
        spec: &JobSpec,
        layout: &Layout,
    ) -> Result<PreparedStrategy, Refusal> {
        let strategy = match &spec.strategy {
            StrategySpec::Composed { .. } => {
                let built = spec.strategy.build(&self.0.catalogue);
                let built = built.map_err(|error| invalid(&error.into()))?;
                built.ok_or_else(|| invalid_strategy("is no composition".to_string()))?
            }
            StrategySpec::Custom { name, settings } => self.registered(spec, name, settings)?,
        };
        let state = strategy.state();
        state
            .check(layout)
            .map_err(|error| invalid_strategy(error.to_string()))?;
        // Workers know the job's seed. This one never leaves the coordinator, so that they can't foresee draws such as
        // noise.
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| {
            let detail = format!("no randomness for the job's secret seed: {error}");
            Refusal::new(RefusalKind::Busy, detail)
        })?;
        Ok(PreparedStrategy {
            strategy,
            state: Arc::new(state),
            seeds: Seeds {
                public: spec.seed,
                secret,
            },
        })
    }

    /// Whether a strategy goes with the job's other settings. Not asked again when the job is recovered: what was accepted goes on,
    /// also if a newer version would refuse it.
    pub(super) fn check_strategy(
        &self,
        spec: &JobSpec,
        strategy: &dyn FederatedStrategy,
    ) -> Result<(), Refusal> {
        match panics::caught(|| spec.check_strategy(strategy)) {
            Ok(checked) => checked.map_err(|error| invalid(&error)),
            Err(panic) => Err(invalid_strategy(format!(
                "can't be checked: it panicked: {panic}"
            ))),
        }
    }

    /// A strategy that an embedder registered under this name.
    fn registered(
        &self,
        spec: &JobSpec,
        name: &str,
        settings: &Settings,
    ) -> Result<Arc<dyn FederatedStrategy>, Refusal> {
        let Some(make) = self.0.strategies.get(name) else {
            let known: Vec<_> = self.0.strategies.keys().map(String::as_str).collect();
            let known = if known.is_empty() {
                "none".to_string()
            } else {
                known.join(", ")
            };
            let registered = self.0.strategies.keys().map(String::as_str);
            let hint = spelling::hint(name, registered);
            return Err(invalid_strategy(format!(
                "{name:?} is not registered with this coordinator{hint}; registered are: {known}. Presets have a kind of their \
                 own: kind = \"fedavg\""
            )));
        };
        let made = make(spec, settings);
        made.map_err(|error| invalid_strategy(format!("{name:?} can't be made: {error}")))
    }

    pub(super) fn evaluation(
        &self,
        spec: &JobSpec,
        has_data: bool,
    ) -> Result<EvaluationBy, Refusal> {
        match spec.evaluation {
            EvaluationMode::Never => return Ok(EvaluationBy::Nobody),
            EvaluationMode::Workers => return Ok(EvaluationBy::Workers),
            // The coordinator has no client's personal tensors.
            EvaluationMode::Auto if spec.has_personal() => return Ok(EvaluationBy::Workers),
            EvaluationMode::Auto | EvaluationMode::Coordinator => {}
        }
        match self.can_evaluate(spec, has_data) {
            Ok(()) => Ok(EvaluationBy::Driver),
            Err(_) if spec.evaluation == EvaluationMode::Auto => Ok(EvaluationBy::Workers),
            Err(reason) => Err(invalid(&JobError::new(
                "evaluation",
                format!("is not possible here: {reason}"),
            ))),
        }
    }

    fn can_evaluate(&self, spec: &JobSpec, has_data: bool) -> Result<(), String> {
        if !has_data {
            return Err(format!("the coordinator has no dataset {:?}", spec.dataset));
        }
        // Made and dropped: a trainer that can't be made refuses the job now and not after its first round.
        let trainer = self.0.trainers.trainer(&spec.description());
        trainer.map(drop).map_err(|error| error.to_string())
    }
}

fn not_kept(error: &dyn std::error::Error) -> Refusal {
    let detail = format!("the initial model can't be kept: {error}");
    Refusal::new(RefusalKind::Storage, detail)
}

/// Writes a model and the values of a strategy's state, those of `from` or the initial ones, block by block.
fn write_initial(
    writer: &mut dyn ModelWriter,
    initial: &Parameters,
    state: &StateSpec,
    from: Option<&dyn StoredModel>,
) -> Result<(), BlockError> {
    for block in initial.layout().blocks() {
        let start = block.range.start;
        // The state's values follow block by block: no second array of the model's size is made for them.
        writer.write(start, &initial.values()[block.range.clone()])?;
        for (index, tensor) in state.tensors.iter().enumerate() {
            if !tensor.roles.contains(block.role) {
                continue;
            }
            if let Some(values) = from.and_then(|model| model.state(&tensor.name)) {
                let mut block_values = vec![0.0; block.range.len()];
                values.read(start, &mut block_values)?;
                writer.write_state(index, start, &block_values)?;
                continue;
            }
            match &tensor.initial {
                Initial::Values(values) => {
                    let values = &values.values()[block.range.clone()];
                    writer.write_state(index, start, values)?;
                }
                Initial::Filled(value) => {
                    writer.write_state(index, start, &vec![*value; block.range.len()])?;
                }
            }
        }
    }
    Ok(())
}

/// Refuses a job whose encodings none of the workers knows that could train it otherwise. Without any such worker, one
/// that knows them may still come.
pub(super) fn check_encodings(state: &State, job: &Job) -> Result<(), Refusal> {
    let registrations = state
        .roster
        .live()
        .map(|(_, record)| &record.info.registration);
    let mut lacks = None;
    for registration in registrations {
        if job.has_its_data(registration) {
            match job.needs.lacks_form(registration) {
                None => return Ok(()),
                Some(what) => lacks = Some((what, &registration.name)),
            }
        }
    }
    let Some((what, name)) = lacks else {
        return Ok(());
    };
    let problem = format!(
        "no worker that has the dataset knows both {} and {}: {name:?} lacks {what}",
        job.spec.encoding.reports, job.spec.encoding.models
    );
    Err(invalid(&JobError::new("encoding", problem)))
}

fn invalid_strategy(problem: String) -> Refusal {
    invalid(&JobError::new("strategy", problem))
}

pub(super) fn invalid(error: &JobError) -> Refusal {
    Refusal::new(RefusalKind::InvalidJob, error.to_string())
}
