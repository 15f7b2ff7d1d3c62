//! Why a device cannot be had.

use super::DeviceSpec;

/// Why there is no such device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The text names no device.
    #[error(
        "unknown device {text:?}: one of cpu, auto, flex, ndarray, libtorch, libtorch:cuda:INDEX, libtorch:mps"
    )]
    Unknown {
        /// What was given.
        text: String,
    },
    /// The device exists, but this binary was built without it.
    #[error(
        "this binary was built without device {device}: rebuild it with `cargo build --release --features {feature}`"
    )]
    NotBuilt {
        /// The device asked for.
        device: DeviceSpec,
        /// The Cargo feature to enable.
        feature: &'static str,
    },
    /// The backend is there, the hardware or its driver is not.
    #[error("device {device} is not available on this machine: {reason}")]
    Unavailable {
        /// The device asked for.
        device: DeviceSpec,
        /// What was found instead.
        reason: String,
    },
    /// A list of devices without one.
    #[error("no device to train on")]
    NoDevice,
    /// A device stands twice in a list; `cpu` and the backend that it stands for are the same.
    #[error("device {device} is named twice")]
    Duplicate {
        /// The device.
        device: DeviceSpec,
    },
}
