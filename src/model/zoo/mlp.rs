//! `mlp`.

use burn::{
    module::Module,
    nn::{Linear, LinearConfig},
    tensor::{Device, Tensor, activation::relu},
};

use super::UnfitShape;
use crate::{
    model::{Classifier, ClassifierShape},
    rng::ChaCha8Rng,
};

const HIDDEN: usize = 128;

/// One hidden layer on the flattened image.
#[derive(Module, Debug)]
pub struct Mlp {
    fc1: Linear,
    fc2: Linear,
}

impl Mlp {
    /// For images of this shape.
    ///
    /// # Errors
    ///
    /// [`UnfitShape`] for images without pixels, or no class.
    pub fn new(shape: &ClassifierShape, device: &Device) -> Result<Self, UnfitShape> {
        if shape.pixels() == 0 || shape.classes == 0 {
            return Err(UnfitShape {
                model: "mlp",
                needs: "at least one pixel and one class",
                shape: *shape,
            });
        }
        Ok(Self {
            fc1: LinearConfig::new(shape.pixels(), HIDDEN).init(device),
            fc2: LinearConfig::new(HIDDEN, shape.classes).init(device),
        })
    }
}

impl Classifier for Mlp {
    fn forward(&self, images: Tensor<4>, _dropout: Option<&mut ChaCha8Rng>) -> Tensor<2> {
        let hidden = relu(self.fc1.forward(images.flatten(1, 3)));
        self.fc2.forward(hidden)
    }
}
