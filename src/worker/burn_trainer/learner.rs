//! What is trained: a module, its examples and its loss.

use std::sync::Arc;

use burn::{
    module::Module,
    tensor::{Device, Int, Tensor, activation::log_softmax},
};
use sha2::{Digest, Sha256};

use super::generator::lock_generator;
use crate::{model, parameters::Parameters, rng::ChaCha8Rng, worker::TrainError};

/// A module, its examples and its loss. Shared by the threads that train.
///
/// Only `module`, `examples` and `loss` have to be written. `loss` is a function of its arguments: what it draws, it
/// draws from [`Randomness`], so that a client's training does not depend on what ran before.
pub trait Learner: Send + Sync + 'static {
    /// The burn module.
    type Module: Module + 'static;

    /// A new module on this device. Its values don't matter, except if `initial` is the default.
    ///
    /// # Errors
    ///
    /// [`TrainError::Model`] if it can't be made for these examples.
    fn module(&self, device: &Device) -> Result<Self::Module, TrainError>;

    /// Number of examples of a split.
    fn examples(&self, split: Split) -> usize;

    /// The loss of a batch, which training differentiates and evaluation only reads.
    ///
    /// # Errors
    ///
    /// [`TrainError::Task`] if the examples can't be had.
    fn loss(&self, module: &Self::Module, batch: Minibatch<'_>) -> Result<BatchLoss, TrainError>;

    /// The initial global model of a job with this seed.
    ///
    /// Without an implementation: a new module's own values, drawn by burn after seeding. Burn has one generator for
    /// the whole process, so that a thread that uses it meanwhile (burn's `Dropout` does) changes what is drawn.
    ///
    /// # Errors
    ///
    /// [`TrainError::Model`].
    fn initial(&self, device: &Device, seed: u64) -> Result<Parameters, TrainError> {
        seeded_initial(device, seed, |device| self.module(device))
    }

    /// The label of each training example, in order, for partitioners that deal by label. Without an implementation
    /// there are none.
    fn labels(&self) -> Option<Arc<[u16]>> {
        None
    }

    /// What two processes compare to know that they hold the same examples. Without an implementation: a digest over
    /// the numbers of examples and the labels.
    fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for split in [Split::Train, Split::Test] {
            hash.update((self.examples(split) as u64).to_le_bytes());
        }
        for label in self.labels().iter().flat_map(|labels| labels.iter()) {
            hash.update(label.to_le_bytes());
        }
        hash.finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

/// The values that a new module draws itself, from burn's generator seeded with this.
pub(super) fn seeded_initial<M: Module>(
    device: &Device,
    seed: u64,
    module: impl FnOnce(&Device) -> Result<M, TrainError>,
) -> Result<Parameters, TrainError> {
    let _drawing = lock_generator();
    let device = device.clone().autodiff();
    device.seed(seed);
    Ok(model::export(&module(&device)?)?)
}

/// Which examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// What clients train on.
    Train,
    /// What the global model is evaluated on.
    Test,
}

/// One batch: its examples, the device to compute on, and the generators to draw from.
#[derive(Debug)]
#[non_exhaustive]
pub struct Minibatch<'a> {
    /// The split that the indices point into.
    pub split: Split,
    /// Indices of the examples, below the split's number of them.
    pub examples: &'a [u32],
    /// The module's device: with autodiff while training.
    pub device: &'a Device,
    /// While training: the generators of this client and round.
    pub randomness: Option<Randomness<'a>>,
    /// While training: the job's label smoothing, from 0 to 1, for a loss over classes
    /// ([`BatchLoss::smoothed_cross_entropy`]); 0 in evaluations. A learner without classes passes it over.
    pub label_smoothing: f64,
}

impl<'a> Minibatch<'a> {
    /// A batch as evaluations have it: nothing is drawn, and nothing smoothed. The public fields change that.
    pub fn new(split: Split, examples: &'a [u32], device: &'a Device) -> Self {
        Self {
            split,
            examples,
            device,
            randomness: None,
            label_smoothing: 0.0,
        }
    }
}

/// The generators of one client's training in one round. They go on from batch to batch.
#[derive(Debug)]
#[non_exhaustive]
pub struct Randomness<'a> {
    /// For varying the examples, if the job asks for that.
    pub augment: Option<&'a mut ChaCha8Rng>,
    /// Whether a crop that varies an image shows the image mirrored at its edge, and not black.
    pub reflect: bool,
    /// For dropout masks; see [`dropout`](crate::model::dropout).
    pub dropout: &'a mut ChaCha8Rng,
}

/// What a batch came to.
#[derive(Debug, Clone)]
pub struct BatchLoss {
    /// Mean over the batch: one value, that training differentiates.
    pub loss: Tensor<1>,
    /// How many examples were answered right: one value. `None` if right and wrong mean nothing; reports and evaluations
    /// then have no accuracy.
    pub correct: Option<Tensor<1>>,
}

impl BatchLoss {
    /// The mean cross-entropy of logits `[examples, classes]` against labels `[examples]`, and how often the largest
    /// logit is the label's.
    pub fn cross_entropy(logits: Tensor<2>, labels: Tensor<1, Int>) -> Self {
        Self::smoothed_cross_entropy(logits, labels, 0.0)
    }

    /// The same with a share of each target, from 0 to 1, spread evenly over all classes, as
    /// `torch.nn.CrossEntropyLoss(label_smoothing)` defines it.
    pub fn smoothed_cross_entropy(
        logits: Tensor<2>,
        labels: Tensor<1, Int>,
        smoothing: f64,
    ) -> Self {
        let [examples, _] = logits.dims();
        // Without autodiff: nothing is differentiated through a count.
        let answers = logits.clone().inner().argmax(1).reshape([examples]);
        let correct = answers.equal(labels.clone().inner()).int().sum().float();
        let likelihoods = log_softmax(logits, 1);
        let of_labels = likelihoods
            .clone()
            .gather(1, labels.reshape([examples, 1]))
            .mean()
            .neg();
        let loss = if smoothing > 0.0 {
            // The mean over the batch and over the classes: each class has the same part of what is spread.
            let of_all = likelihoods.mean().neg();
            of_labels.mul_scalar(1.0 - smoothing) + of_all.mul_scalar(smoothing)
        } else {
            of_labels
        };
        Self {
            loss,
            correct: Some(correct),
        }
    }
}
