//! `lenet`: Y. LeCun et al., "Gradient-Based Learning Applied to Document Recognition", Proceedings of the IEEE, 1998.

use burn::{
    module::Module,
    nn::{
        Linear, LinearConfig,
        conv::{Conv2d, Conv2dConfig},
    },
    tensor::{Device, Tensor, activation::relu},
};

use super::{UnfitShape, halved};
use crate::{
    model::{Classifier, ClassifierShape},
    rng::ChaCha8Rng,
};

const KERNEL: usize = 5;

/// LeNet-5 with ReLU and max pooling: two convolutions without padding, three linear layers.
#[derive(Module, Debug)]
pub struct LeNet {
    conv1: Conv2d,
    conv2: Conv2d,
    fc1: Linear,
    fc2: Linear,
    fc3: Linear,
}

impl LeNet {
    /// For images of this shape.
    ///
    /// # Errors
    ///
    /// [`UnfitShape`] for images that are not square or have fewer than 16 pixels a side.
    pub fn new(shape: &ClassifierShape, device: &Device) -> Result<Self, UnfitShape> {
        let side = shape.height;
        if shape.width != side || side < 16 || shape.channels == 0 || shape.classes == 0 {
            return Err(UnfitShape {
                model: "lenet",
                needs: "square images of at least 16 pixels a side",
                shape: *shape,
            });
        }
        let left = ((side - (KERNEL - 1)) / 2 - (KERNEL - 1)) / 2;
        Ok(Self {
            conv1: Conv2dConfig::new([shape.channels, 6], [KERNEL; 2]).init(device),
            conv2: Conv2dConfig::new([6, 16], [KERNEL; 2]).init(device),
            fc1: LinearConfig::new(16 * left * left, 120).init(device),
            fc2: LinearConfig::new(120, 84).init(device),
            fc3: LinearConfig::new(84, shape.classes).init(device),
        })
    }
}

impl Classifier for LeNet {
    fn forward(&self, images: Tensor<4>, _dropout: Option<&mut ChaCha8Rng>) -> Tensor<2> {
        let x = relu(halved(self.conv1.forward(images)));
        let x = relu(halved(self.conv2.forward(x)));
        let x = relu(self.fc1.forward(x.flatten(1, 3)));
        self.fc3.forward(relu(self.fc2.forward(x)))
    }
}
