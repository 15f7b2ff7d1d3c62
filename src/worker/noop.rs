//! Trainers that do not train, for measuring and rehearsing everything around training: rounds, networks, strategies.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    ClientContext, EvalTask, LOSS_BEFORE, LocalTrainer, LocalUpdate, Objectives, Partition,
    PayloadValues, TrainError, TrainTask, TrainerFactory, objective::CONTROL,
};
use crate::{
    job::{JobDescription, JobSpec, TrainingSettings},
    parameters::{Layout, LayoutError, Parameters, Role, Values},
    protocol::DatasetInfo,
    round::Evaluation,
};

/// The name of the only dataset and the only model of [`NoopTrainers`].
pub const NOOP: &str = "noop";

/// Makes trainers whose update is the global model plus a constant that depends on the round and the client.
#[derive(Debug, Clone)]
pub struct NoopTrainers {
    layout: Arc<Layout>,
    labels: Arc<[u16]>,
}

impl NoopTrainers {
    /// A model of one tensor with this many parameters, and a dataset with this many examples of ten classes.
    ///
    /// # Errors
    ///
    /// [`LayoutError::TooLarge`].
    pub fn new(parameters: usize, examples: usize) -> Result<Self, LayoutError> {
        let layout = Layout::new([("weight".to_string(), vec![parameters], Role::Trainable)])?;
        Ok(Self::with_layout(layout, examples))
    }

    /// A model of this layout, and a dataset with this many examples of ten classes.
    pub fn with_layout(layout: Arc<Layout>, examples: usize) -> Self {
        Self {
            layout,
            labels: (0..examples).map(|index| (index % 10) as u16).collect(),
        }
    }

    /// A job for these trainers.
    pub fn job(&self) -> JobSpec {
        JobSpec {
            model: NOOP.to_string(),
            dataset: NOOP.to_string(),
            ..JobSpec::default()
        }
    }

    /// What a client adds to every parameter in a round: a multiple of 1/64, so that sums are exact.
    pub fn step(round: u64, client: u32) -> f32 {
        ((round * 31 + u64::from(client) * 7) % 64) as f32 / 64.0
    }

    fn check(&self, model: &str, dataset: &str) -> Result<(), TrainError> {
        if model != NOOP {
            return Err(TrainError::UnknownModel {
                name: model.to_string(),
                known: NOOP.to_string(),
            });
        }
        self.dataset(dataset).map(drop)
    }
}

impl TrainerFactory for NoopTrainers {
    fn trainer(&self, job: &JobDescription) -> Result<Box<dyn LocalTrainer>, TrainError> {
        self.check(&job.model, &job.dataset)?;
        Ok(Box::new(NoopTrainer {
            examples: self.labels.len() as u64,
        }))
    }

    fn initial(&self, job: &JobDescription) -> Result<Parameters, TrainError> {
        self.check(&job.model, &job.dataset)?;
        Ok(Parameters::zeros(self.layout.clone()))
    }

    fn dataset(&self, name: &str) -> Result<DatasetInfo, TrainError> {
        let known = self
            .datasets()
            .into_iter()
            .find(|dataset| dataset.name == name);
        known.ok_or_else(|| TrainError::UnknownDataset {
            name: name.to_string(),
            reason: format!("a rehearsal has only the dataset {NOOP:?}").into(),
        })
    }

    fn labels(&self, dataset: &str) -> Result<Arc<[u16]>, TrainError> {
        self.dataset(dataset)?;
        Ok(self.labels.clone())
    }

    fn datasets(&self) -> Vec<DatasetInfo> {
        let examples = self.labels.len() as u64;
        vec![DatasetInfo {
            name: NOOP.to_string(),
            fingerprint: format!("noop-{examples}"),
            train_examples: examples,
            test_examples: examples,
        }]
    }

    fn capabilities(&self) -> Vec<String> {
        let training = TrainingSettings::CAPABILITIES.map(str::to_string);
        let objectives = Objectives::default();
        let loss_before = format!("payload:{LOSS_BEFORE}");
        training
            .into_iter()
            .chain(objectives.capabilities())
            .chain(JobSpec::TENSOR_CAPABILITIES.map(str::to_string))
            .chain([loss_before, EvalTask::VALIDATION.to_string()])
            .collect()
    }
}

struct NoopTrainer {
    examples: u64,
}

impl LocalTrainer for NoopTrainer {
    fn train(
        &mut self,
        global: &Parameters,
        task: &TrainTask,
        context: &mut ClientContext<'_>,
    ) -> Result<LocalUpdate, TrainError> {
        // Once is enough: all that follows is one pass over the model.
        if context.is_cancelled() {
            return Err(TrainError::Cancelled);
        }
        let mut parameters = global.clone();
        let step = NoopTrainers::step(task.round.0, task.client.0);
        for tensor in global.layout().tensors() {
            if !task.is_fixed(tensor) {
                let values = &mut parameters.values_mut()[tensor.range()];
                values.iter_mut().for_each(|value| *value += step);
            }
        }
        let examples = match &task.partition {
            Partition::Indices(indices) => indices.len() as u64,
            Partition::Everything => self.examples,
        };
        let metrics =
            BTreeMap::from([("train_loss".to_string(), 1.0 / (1.0 + task.round.0 as f64))]);
        let mut update = LocalUpdate::new(parameters, examples);
        update.metrics = metrics;
        // So that any algorithm can be rehearsed.
        if task.expects(CONTROL) {
            let zeros = Parameters::zeros(global.layout().clone());
            let control = PayloadValues::Model(zeros);
            update.payloads.insert(CONTROL.to_string(), control);
        }
        if task.expects(LOSS_BEFORE) {
            let loss = PayloadValues::Values(Values::F64(vec![0.0]));
            update.payloads.insert(LOSS_BEFORE.to_string(), loss);
        }
        Ok(update)
    }

    fn evaluate(
        &mut self,
        _global: &Parameters,
        task: &EvalTask,
        _context: &mut ClientContext<'_>,
    ) -> Result<Evaluation, TrainError> {
        let examples = match &task.training {
            Some(examples) => examples.len(),
            None => task.examples(self.examples as u32)?.len(),
        };
        let loss = 1.0 / (1.0 + task.version.0 as f64);
        Ok(Evaluation::new(loss, examples as u64).with_accuracy(0.5))
    }
}
