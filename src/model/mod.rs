//! Burn models, and the bridge between a burn module and [`Parameters`](crate::parameters::Parameters).
//!
//! [`export`] and [`import`] move the values of any burn `Module`, BatchNorm's statistics included, to and from PyTorch's
//! names and memory layout, so that a model file of this crate opens in PyTorch and the other way round. [`zoo`] has
//! the models that the binaries know by name. Nothing here knows datasets, jobs, rounds or files, and nothing here draws
//! from burn's global generator: [`pytorch_initial`] and [`dropout`] draw on the host, from generators of the caller.

mod bridge;
mod classifier;
mod initial;
mod layer;
#[cfg(test)]
pub(crate) mod testing;
pub mod zoo;

pub use bridge::{BridgeError, export, import, layout_of};
pub(crate) use bridge::{export_as, fill, panic_text};
pub use classifier::{Classifier, ClassifierShape};
pub use initial::pytorch_initial;
pub use layer::{BatchNorm, dropout};
