//! Burn models, and the bridge between a burn module and [`Parameters`](crate::parameters::Parameters).
//!
//! [`export`] and [`import`] move the values of any burn `Module`, BatchNorm's statistics included, to and from
//! PyTorch's names and memory layout, so that a model file of this crate opens in PyTorch and the other way round.
//! [`zoo`] has the models that the binaries know by name. Nothing here knows datasets, jobs or files, and what is drawn
//! here ([`pytorch_initial`], [`dropout`]) is drawn on the host, from a seed or a generator of the caller.

mod bridge;
mod classifier;
mod initial;
mod layer;
#[cfg(test)]
pub(crate) mod testing;
pub mod zoo;

pub use bridge::{BridgeError, export, import, layout_of};
pub(crate) use bridge::{
    export_as, fill, load_tensors, save_tensors, trainable_names, without_gradients,
};
pub use classifier::{Classifier, ClassifierShape};
pub use initial::pytorch_initial;
pub use layer::{BatchNorm, dropout};
