//! Why a module's values can't be read, or can't be put into it.

use thiserror::Error;

use crate::parameters::LayoutError;

/// Why values do not go from a module to parameters or back.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BridgeError {
    /// The module and the parameters have different tensors.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A tensor of the module is not f32.
    #[error("tensor {name:?} is {found}; only F32 can be averaged")]
    Dtype {
        /// Its name.
        name: String,
        /// Its type.
        found: String,
    },
    /// Burn panicked.
    #[error("burn panicked: {0}")]
    Panicked(String),
}
