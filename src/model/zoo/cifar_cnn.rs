//! `cifar_cnn`: the model of the CIFAR-10 experiments.

use burn::{
    module::Module,
    nn::{
        Linear, LinearConfig, PaddingConfig2d,
        conv::{Conv2d, Conv2dConfig},
    },
    tensor::{Device, Tensor, activation::relu},
};

use super::{UnfitShape, halved};
use crate::{
    model::{BatchNorm, Classifier, ClassifierShape, dropout},
    rng::ChaCha8Rng,
};

/// Three convolutions of 3 x 3 with BatchNorm and ReLU, pooled after the second and the third; a hidden layer of 256
/// with dropout of one half.
#[derive(Module, Debug)]
pub struct CifarCnn {
    conv1: Conv2d,
    bn1: BatchNorm,
    conv2: Conv2d,
    bn2: BatchNorm,
    conv3: Conv2d,
    bn3: BatchNorm,
    fc1: Linear,
    fc2: Linear,
}

impl CifarCnn {
    /// For images of this shape.
    ///
    /// # Errors
    ///
    /// [`UnfitShape`] for images with a side below 4 pixels, which leave nothing after pooling.
    pub fn new(shape: &ClassifierShape, device: &Device) -> Result<Self, UnfitShape> {
        let inputs = 128 * (shape.height / 4) * (shape.width / 4);
        if inputs * shape.channels * shape.classes == 0 {
            return Err(UnfitShape {
                model: "cifar_cnn",
                needs: "sides of at least 4 pixels",
                shape: *shape,
            });
        }
        Ok(Self {
            conv1: padded([shape.channels, 32], device),
            bn1: BatchNorm::new(32, device),
            conv2: padded([32, 64], device),
            bn2: BatchNorm::new(64, device),
            conv3: padded([64, 128], device),
            bn3: BatchNorm::new(128, device),
            fc1: LinearConfig::new(inputs, 256).init(device),
            fc2: LinearConfig::new(256, shape.classes).init(device),
        })
    }
}

/// A convolution of 3 x 3 that keeps the image's size.
pub(super) fn padded(channels: [usize; 2], device: &Device) -> Conv2d {
    Conv2dConfig::new(channels, [3, 3])
        .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
        .init(device)
}

impl Classifier for CifarCnn {
    fn forward(&self, images: Tensor<4>, rng: Option<&mut ChaCha8Rng>) -> Tensor<2> {
        let x = relu(self.bn1.forward(self.conv1.forward(images)));
        let x = relu(halved(self.bn2.forward(self.conv2.forward(x))));
        let x = relu(halved(self.bn3.forward(self.conv3.forward(x))));
        let x = relu(self.fc1.forward(x.flatten(1, 3)));
        self.fc2.forward(dropout(x, 0.5, rng))
    }
}
