//! Image classifiers as learners.

use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::{
    BatchLoss, Learner, Minibatch, Split, TrainError, generator::lock_generator,
    learner::seeded_initial,
};
use crate::{
    data::{Batch, DataError, Dataset, ImageSet, Transform},
    job::Normalize,
    model::{Classifier, ClassifierShape, layout_of, pytorch_initial},
    parameters::Parameters,
};

/// Makes classifiers of one kind.
pub(super) struct Family<C: Classifier> {
    pub(super) build: Box<Build<C>>,
    pub(super) initial: Initial,
}

/// Makes a classifier for images of a shape.
pub(super) type Build<C> = dyn Fn(&ClassifierShape, &Device) -> Result<C, TrainError> + Send + Sync;

/// What draws the values of an initial global model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Initial {
    /// PyTorch's distributions, drawn on the host: the same on every device.
    PyTorch,
    /// What the module draws itself.
    Module,
}

impl<C: Classifier> Family<C> {
    /// The initial global model of a job with this seed, for which only the shape of the images is needed.
    pub(super) fn initial(
        &self,
        shape: &ClassifierShape,
        device: &Device,
        seed: u64,
    ) -> Result<Parameters, TrainError> {
        match self.initial {
            Initial::PyTorch => {
                // Only the module's names and shapes are used, but building it moves burn's generator.
                let _drawing = lock_generator();
                let module = (self.build)(shape, &device.clone().autodiff())?;
                Ok(pytorch_initial(&layout_of(&module)?, seed))
            }
            Initial::Module => seeded_initial(device, seed, |device| (self.build)(shape, device)),
        }
    }
}

/// A classifier on a dataset.
pub(super) struct ImageLearner<C: Classifier> {
    family: Arc<Family<C>>,
    dataset: Arc<Dataset>,
    transform: Transform,
    shape: ClassifierShape,
}

impl<C: Classifier> ImageLearner<C> {
    pub(super) fn new(
        family: Arc<Family<C>>,
        dataset: Arc<Dataset>,
        normalize: Normalize,
    ) -> Result<Self, TrainError> {
        let transform = match normalize {
            Normalize::None => dataset.plain_transform(),
            _ => dataset.transform(),
        };
        Ok(Self {
            family,
            transform: transform.map_err(unusable)?,
            shape: shape_of(&dataset),
            dataset,
        })
    }

    fn images(&self, split: Split) -> &ImageSet {
        match split {
            Split::Train => &self.dataset.train,
            Split::Test => &self.dataset.test,
        }
    }
}

/// What a classifier of this dataset has to be like.
pub(super) fn shape_of(dataset: &Dataset) -> ClassifierShape {
    let shape = dataset.train.shape();
    ClassifierShape {
        channels: shape.channels,
        height: shape.height,
        width: shape.width,
        classes: dataset.train.classes().len(),
    }
}

impl<C: Classifier> Learner for ImageLearner<C> {
    type Module = C;

    fn module(&self, device: &Device) -> Result<C, TrainError> {
        (self.family.build)(&self.shape, device)
    }

    fn examples(&self, split: Split) -> usize {
        self.images(split).len()
    }

    fn loss(&self, module: &C, batch: Minibatch<'_>) -> Result<BatchLoss, TrainError> {
        let images = self.images(batch.split);
        let mut augmentation = self.dataset.augmentation;
        let (augment, dropout) = match batch.randomness {
            Some(randomness) => {
                augmentation.reflect |= randomness.reflect;
                (randomness.augment, Some(randomness.dropout))
            }
            None => (None, None),
        };
        let mut filled = Batch::default();
        let is_varied = augmentation.flip || augmentation.crop_padding > 0;
        match augment.filter(|_| is_varied) {
            Some(rng) => self.transform.fill_augmented(
                images,
                batch.examples,
                augmentation,
                rng,
                &mut filled,
            ),
            None => self.transform.fill(images, batch.examples, &mut filled),
        }
        .map_err(|error| TrainError::Task(error.to_string()))?;
        let ClassifierShape {
            channels,
            height,
            width,
            ..
        } = self.shape;
        let count = filled.labels.len();
        let pixels = TensorData::new(filled.pixels, [count, channels, height, width]);
        let labels = TensorData::new(filled.labels, [count]);
        let logits = module.forward(Tensor::from_data(pixels, batch.device), dropout);
        let labels = Tensor::<1, Int>::from_data(labels, batch.device);
        let smoothing = batch.label_smoothing;
        Ok(BatchLoss::smoothed_cross_entropy(logits, labels, smoothing))
    }

    fn initial(&self, device: &Device, seed: u64) -> Result<Parameters, TrainError> {
        self.family.initial(&self.shape, device, seed)
    }

    fn labels(&self) -> Option<Arc<[u16]>> {
        Some(self.dataset.train.labels().into())
    }

    fn fingerprint(&self) -> String {
        self.dataset.fingerprint()
    }
}

fn unusable(error: DataError) -> TrainError {
    TrainError::Task(error.to_string())
}
