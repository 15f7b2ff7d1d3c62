//! From a burn module to [`Parameters`] and back, for any module on any device.
//!
//! Tensors are named by their path in the module (`conv1.weight`, `blocks.0.bias`), with PyTorch's names and memory
//! layout:
//!
//! - `Linear`: the weight is transposed to `[outputs, inputs]`, whatever the layer's own layout is;
//! - `BatchNorm`, `LayerNorm`, `GroupNorm`, `InstanceNorm`, `RmsNorm`: `gamma` and `beta` are `weight` and `bias`;
//! - everything else, convolutions among it, keeps burn's name and order of dimensions, which for convolutions is
//!   PyTorch's too. Recurrent layers and attention are cut into other tensors than PyTorch's: such a model round-trips
//!   through this crate, but PyTorch does not open it.
//!
//! A tensor that requires a gradient is [`Role::Trainable`]; any other, such as BatchNorm's running statistics or a
//! frozen layer, is a [`Role::Buffer`]. Integers, booleans and flags stay in the module and never cross.
//!
//! Nothing here panics: what burn panics on comes back as [`BridgeError::Panicked`].

mod error;
mod export;
mod freeze;
mod import;
mod pytorch;
mod tensors;

use std::{collections::BTreeMap, sync::Arc};

use burn::{module::Module, optim::GradientsParams};
pub use error::BridgeError;

#[cfg(doc)]
use crate::parameters::Role;
use crate::{
    panics,
    parameters::{Layout, Parameters},
};

/// The module's values, with the layout that [`layout_of`] gives.
///
/// # Errors
///
/// [`BridgeError::Dtype`] for a tensor that is not f32, [`BridgeError::Layout`] for a module without any tensor or with
/// two of one name, [`BridgeError::Panicked`].
pub fn export<M: Module>(module: &M) -> Result<Parameters, BridgeError> {
    guarded(|| export::collect(module)?.into_parameters())
}

/// As [`export`], into this layout, which must be the module's.
pub(crate) fn export_as<M: Module>(
    module: &M,
    layout: &Arc<Layout>,
) -> Result<Parameters, BridgeError> {
    guarded(|| export::collect(module)?.into_layout(layout))
}

/// Names, shapes and roles of the module's tensors.
///
/// Draws the initial values of a module that is not initialised yet, as every use of it would.
///
/// # Errors
///
/// As for [`export`].
pub fn layout_of<M: Module>(module: &M) -> Result<Arc<Layout>, BridgeError> {
    guarded(|| export::layout(module))
}

/// The module with these values in place of its own.
///
/// A burn module's clones share BatchNorm's running statistics, so that an import into one changes the others: to keep
/// a module, build a second one and import into that.
///
/// # Errors
///
/// [`BridgeError::Layout`] names the first tensor that is missing, unexpected or of another shape; else as for
/// [`export`]. The module is lost then.
pub fn import<M: Module>(module: M, parameters: &Parameters) -> Result<M, BridgeError> {
    // `fill` looks up the module's own tensors: it would not notice one that only the parameters have.
    layout_of(&module)?.check_same(parameters.layout())?;
    // BatchNorm keeps its last update aside; a validation copy is what makes burn put it in place, so that it does not
    // overwrite the imported statistics later.
    guarded(|| {
        let _settled = module.valid();
        Ok(())
    })?;
    fill(module, parameters)
}

/// As [`import`], for a module that was just built and whose layout was compared already: initial values that were not
/// drawn yet are not drawn at all.
pub(crate) fn fill<M: Module>(module: M, parameters: &Parameters) -> Result<M, BridgeError> {
    guarded(|| import::fill(module, parameters))
}

/// The module without gradients for the tensors whose PyTorch name is `fixed`: a backward pass leaves them out, and optimizers pass
/// them over.
pub(crate) fn without_gradients<M: Module>(
    module: M,
    fixed: &dyn Fn(&str) -> bool,
) -> Result<M, BridgeError> {
    guarded(|| Ok(freeze::without_gradients(module, fixed)))
}

/// Values for those of the module's trainable tensors whose name is `wanted`, such as a correction of their gradients, on the module's
/// device and without autodiff; each is found by its tensor's id. The parameters have the module's layout; values of other roles
/// are passed over.
pub(crate) fn load_tensors<M: Module>(
    module: &M,
    parameters: &Parameters,
    wanted: &dyn Fn(&str) -> bool,
) -> Result<GradientsParams, BridgeError> {
    guarded(|| tensors::load(module, parameters, wanted))
}

/// The other way round: values of the module's trainable tensors as parameters of this layout, the module's. What has no value
/// is zero.
pub(crate) fn save_tensors<M: Module>(
    module: &M,
    values: &GradientsParams,
    layout: &Arc<Layout>,
) -> Result<Parameters, BridgeError> {
    guarded(|| tensors::save(module, values, layout))
}

/// PyTorch's names of the module's trainable tensors, by the numbers of their ids.
pub(crate) fn trainable_names<M: Module>(module: &M) -> Result<BTreeMap<u64, String>, BridgeError> {
    guarded(|| Ok(tensors::names(module)))
}

fn guarded<T>(action: impl FnOnce() -> Result<T, BridgeError>) -> Result<T, BridgeError> {
    panics::caught(action).unwrap_or_else(|text| Err(BridgeError::Panicked(text)))
}

#[cfg(test)]
mod tests;
