//! What an image classifier is to the trainer.

use std::fmt;

use burn::{module::Module, tensor::Tensor};
use serde::{Deserialize, Serialize};

use crate::rng::ChaCha8Rng;

/// A burn module that answers images with one logit for each class. Its loss is the cross-entropy.
///
/// A module of your own becomes trainable by implementing it; the worker's `BurnTrainers::with_model` gives it a name that
/// jobs can ask for. What is not an image classifier implements the worker's `Learner`.
///
/// # Contract
///
/// 1. `forward` returns one row for each image and one column for each class, in the order of the dataset's classes.
/// 2. The columns are logits: the loss applies the softmax.
/// 3. Without a generator, and with the same parameters, the same images give the same logits.
/// 4. All randomness of training comes from the generator that `forward` is given.
/// 5. Tensors that have a gradient are trained and averaged; others (BatchNorm's statistics) are averaged alone. Names, shapes
///    and their number are the same for every instance that a factory makes.
pub trait Classifier: Module + 'static {
    /// `[images, channels, height, width]` to `[images, classes]`.
    ///
    /// `dropout` is the generator that dropout masks come from (see [`dropout`](crate::model::dropout)); without one,
    /// nothing is dropped. It is there while training and keyed by seed, round and client, so that a client's training
    /// does not depend on what ran before. burn's own `Dropout` works too, but draws from a generator that the whole
    /// process shares and that is not seeded: the same bits are then not promised.
    fn forward(&self, images: Tensor<4>, dropout: Option<&mut ChaCha8Rng>) -> Tensor<2>;
}

/// The numbers that the sizes of a classifier's layers follow from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ClassifierShape {
    /// Colour channels of an image.
    pub channels: usize,
    /// Rows of an image.
    pub height: usize,
    /// Pixels of a row.
    pub width: usize,
    /// Number of classes.
    pub classes: usize,
}

impl fmt::Display for ClassifierShape {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            channels,
            height,
            width,
            classes,
        } = self;
        write!(
            formatter,
            "{channels} x {height} x {width} with {classes} classes"
        )
    }
}

impl ClassifierShape {
    /// Values of one image.
    pub fn pixels(&self) -> usize {
        self.channels * self.height * self.width
    }
}
