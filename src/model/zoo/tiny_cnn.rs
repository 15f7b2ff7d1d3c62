//! `tiny_cnn`: every kind of layer of `cifar_cnn`, small enough for tests and for the embedded digits.

use burn::{
    module::Module,
    nn::{Linear, LinearConfig, conv::Conv2d},
    tensor::{Device, Tensor, activation::relu},
};

use super::{UnfitShape, cifar_cnn::padded, halved};
use crate::{
    model::{BatchNorm, Classifier, ClassifierShape, dropout},
    rng::ChaCha8Rng,
};

/// Two convolutions of 3 x 3 with BatchNorm and ReLU, each pooled; a hidden layer of 32 with dropout of a quarter.
#[derive(Module, Debug)]
pub struct TinyCnn {
    conv1: Conv2d,
    bn1: BatchNorm,
    conv2: Conv2d,
    bn2: BatchNorm,
    fc1: Linear,
    fc2: Linear,
}

impl TinyCnn {
    /// For images of this shape.
    ///
    /// # Errors
    ///
    /// [`UnfitShape`] for images with a side below 4 pixels, which leave nothing after pooling.
    pub fn new(shape: &ClassifierShape, device: &Device) -> Result<Self, UnfitShape> {
        let inputs = 16 * (shape.height / 4) * (shape.width / 4);
        if inputs * shape.channels * shape.classes == 0 {
            return Err(UnfitShape {
                model: "tiny_cnn",
                needs: "sides of at least 4 pixels",
                shape: *shape,
            });
        }
        Ok(Self {
            conv1: padded([shape.channels, 8], device),
            bn1: BatchNorm::new(8, device),
            conv2: padded([8, 16], device),
            bn2: BatchNorm::new(16, device),
            fc1: LinearConfig::new(inputs, 32).init(device),
            fc2: LinearConfig::new(32, shape.classes).init(device),
        })
    }
}

impl Classifier for TinyCnn {
    fn forward(&self, images: Tensor<4>, rng: Option<&mut ChaCha8Rng>) -> Tensor<2> {
        let x = relu(halved(self.bn1.forward(self.conv1.forward(images))));
        let x = relu(halved(self.bn2.forward(self.conv2.forward(x))));
        let x = relu(self.fc1.forward(x.flatten(1, 3)));
        self.fc2.forward(dropout(x, 0.25, rng))
    }
}
