//! Families of classifiers and learners whose types are forgotten, so that a registry can hold any of them.

use std::sync::Arc;

use burn::tensor::Device;

use super::{
    BurnTrainer, Learner, Split,
    images::{Family, ImageLearner},
};
use crate::{
    data::Dataset,
    job::Normalize,
    model::{Classifier, ClassifierShape},
    parameters::Parameters,
    protocol::DatasetInfo,
    worker::{LocalTrainer, Objectives, TrainError},
};

/// A [`Family`] whose type is forgotten.
pub(super) trait AnyFamily: Send + Sync {
    fn trainer(
        &self,
        dataset: Arc<Dataset>,
        normalize: Normalize,
        device: Device,
        objectives: &Objectives,
    ) -> Result<Box<dyn LocalTrainer>, TrainError>;
    fn initial(
        &self,
        shape: &ClassifierShape,
        device: &Device,
        seed: u64,
    ) -> Result<Parameters, TrainError>;
}

impl<C: Classifier> AnyFamily for Arc<Family<C>> {
    fn trainer(
        &self,
        dataset: Arc<Dataset>,
        normalize: Normalize,
        device: Device,
        objectives: &Objectives,
    ) -> Result<Box<dyn LocalTrainer>, TrainError> {
        let learner = ImageLearner::new(self.clone(), dataset, normalize)?;
        let trainer = BurnTrainer::new(Arc::new(learner), device)?;
        Ok(Box::new(trainer.with_objectives(objectives.clone())))
    }

    fn initial(
        &self,
        shape: &ClassifierShape,
        device: &Device,
        seed: u64,
    ) -> Result<Parameters, TrainError> {
        Family::initial(self, shape, device, seed)
    }
}

/// A [`Learner`] whose type is forgotten.
pub(super) trait AnyLearner: Send + Sync {
    fn trainer(
        &self,
        device: Device,
        objectives: &Objectives,
    ) -> Result<Box<dyn LocalTrainer>, TrainError>;
    fn initial(&self, device: &Device, seed: u64) -> Result<Parameters, TrainError>;
    fn labels(&self) -> Option<Arc<[u16]>>;
    fn info(&self, name: &str) -> DatasetInfo;
}

/// A learner that its trainers share.
pub(super) struct Shared<L>(pub(super) Arc<L>);

impl<L: Learner> AnyLearner for Shared<L> {
    fn trainer(
        &self,
        device: Device,
        objectives: &Objectives,
    ) -> Result<Box<dyn LocalTrainer>, TrainError> {
        let trainer = BurnTrainer::new(self.0.clone(), device)?;
        Ok(Box::new(trainer.with_objectives(objectives.clone())))
    }

    fn initial(&self, device: &Device, seed: u64) -> Result<Parameters, TrainError> {
        self.0.initial(device, seed)
    }

    fn labels(&self) -> Option<Arc<[u16]>> {
        self.0.labels()
    }

    fn info(&self, name: &str) -> DatasetInfo {
        DatasetInfo {
            name: name.to_string(),
            fingerprint: self.0.fingerprint(),
            train_examples: self.0.examples(Split::Train) as u64,
            test_examples: self.0.examples(Split::Test) as u64,
        }
    }
}
