//! The models that jobs can ask for by name. Their tensors have the names and shapes of `scripts/pytorch_zoo.py`.
//!
//! | name | for | layers, and number of parameters |
//! |---|---|---|
//! | `mlp` | any image | one hidden layer of 128 |
//! | `lenet` | squares of at least 16 pixels | LeNet-5 with ReLU and max pooling; 62 006 for CIFAR-10 |
//! | `cifar_cnn` | sides of at least 4 pixels | three convolutions with BatchNorm, dropout; 2 193 674 for CIFAR-10 |
//! | `tiny_cnn` | sides of at least 4 pixels | the layers of `cifar_cnn` at the size of a test |

mod cifar_cnn;
mod lenet;
mod mlp;
mod tiny_cnn;

use burn::tensor::{Tensor, module::max_pool2d, ops::MaxPoolOptions};
pub use cifar_cnn::CifarCnn;
pub use lenet::LeNet;
pub use mlp::Mlp;
use thiserror::Error;
pub use tiny_cnn::TinyCnn;

use super::ClassifierShape;

/// The names.
pub const NAMES: [&str; 4] = ["cifar_cnn", "lenet", "mlp", "tiny_cnn"];

/// A model of the zoo can't be made for images of this shape.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{model} needs {needs}, not {shape}: choose another model or dataset")]
pub struct UnfitShape {
    /// The model.
    pub model: &'static str,
    /// What it needs.
    pub needs: &'static str,
    /// The shape it was asked for.
    pub shape: ClassifierShape,
}

/// Max pooling by 2 x 2 windows side by side; an odd last row or column is left out, as in PyTorch.
///
/// If a ReLU goes with it, the zoo halves first: the largest value is the same either way, to the bit, and so is its
/// gradient, and a ReLU of a quarter of the values takes a quarter of the time.
fn halved(images: Tensor<4>) -> Tensor<4> {
    max_pool2d(images, MaxPoolOptions::new([2, 2]))
}

#[cfg(test)]
mod tests;
