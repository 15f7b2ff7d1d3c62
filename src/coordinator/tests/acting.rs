//! Trainers that do what a test says, around those that do nothing.

use super::*;
use crate::{
    job::JobDescription,
    protocol::DatasetInfo,
    worker::{
        ClientContext, EvalTask, LocalTrainer, LocalUpdate, TrainError, TrainTask, TrainerFactory,
    },
};

/// What is done with an update before it is reported.
type Act = dyn Fn(&TrainTask, &mut ClientContext<'_>, &mut LocalUpdate) + Send + Sync;

/// Trainers of [`NoopTrainers`]' updates, on which `act` acts.
pub(super) struct Acting {
    pub inner: NoopTrainers,
    pub act: Arc<Act>,
    /// Called before a trainer is made, a model is drawn, or a version is evaluated, with `trainer`, `initial` or `evaluate`.
    pub before: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Acting {
    pub fn new(
        act: impl Fn(&TrainTask, &mut ClientContext<'_>, &mut LocalUpdate) + Send + Sync + 'static,
    ) -> Self {
        Self {
            inner: NoopTrainers::new(SIZE, 100).unwrap(),
            act: Arc::new(act),
            before: Arc::new(|_| {}),
        }
    }
}

impl TrainerFactory for Acting {
    fn trainer(&self, job: &JobDescription) -> Result<Box<dyn LocalTrainer>, TrainError> {
        (self.before)("trainer");
        Ok(Box::new(ActingTrainer {
            inner: self.inner.trainer(job)?,
            act: self.act.clone(),
            before: self.before.clone(),
        }))
    }
    fn initial(&self, job: &JobDescription) -> Result<Parameters, TrainError> {
        (self.before)("initial");
        self.inner.initial(job)
    }
    fn dataset(&self, name: &str) -> Result<DatasetInfo, TrainError> {
        self.inner.dataset(name)
    }
    fn labels(&self, dataset: &str) -> Result<Arc<[u16]>, TrainError> {
        self.inner.labels(dataset)
    }
    fn datasets(&self) -> Vec<DatasetInfo> {
        self.inner.datasets()
    }
}

struct ActingTrainer {
    inner: Box<dyn LocalTrainer>,
    act: Arc<Act>,
    before: Arc<dyn Fn(&str) + Send + Sync>,
}

impl LocalTrainer for ActingTrainer {
    fn train(
        &mut self,
        global: &Parameters,
        task: &TrainTask,
        context: &mut ClientContext<'_>,
    ) -> Result<LocalUpdate, TrainError> {
        let mut update = self.inner.train(global, task, context)?;
        (self.act)(task, context, &mut update);
        Ok(update)
    }

    fn evaluate(
        &mut self,
        global: &Parameters,
        task: &EvalTask,
        context: &mut ClientContext<'_>,
    ) -> Result<crate::round::Evaluation, TrainError> {
        (self.before)("evaluate");
        self.inner.evaluate(global, task, context)
    }
}
