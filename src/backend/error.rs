//! Why a device can't be used.

use super::DeviceSpec;

/// Why a device can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The text names no device.
    #[error("unknown device {text:?}: use one of {DEVICES}")]
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
    /// The backend is there; the hardware or its driver is not, or it can't compute.
    #[error("device {device} is not available on this machine: {reason}")]
    Unavailable {
        /// The device asked for.
        device: DeviceSpec,
        /// What was found instead.
        reason: String,
    },
    /// The GPU is there, and this build has no code for its generation.
    #[error(
        "device {device} ({gpu}) can't be used: {build} has no code for it (\"no kernel image\"); {advice}"
    )]
    NoKernels {
        /// The device asked for.
        device: DeviceSpec,
        /// The GPU's name and compute capability.
        gpu: String,
        /// What this binary was built against.
        build: String,
        /// What to do about it.
        advice: String,
    },
    /// This program runs with another LibTorch than it was built against.
    #[error("{reason}")]
    OtherLibTorch {
        /// Both versions, and the folder of the libraries.
        reason: String,
    },
    /// An empty list of devices.
    #[error("the list of devices is empty: name at least one, such as cpu")]
    NoDevice,
    /// A list has a device more than once. `cpu` and the backend that it means are the same device.
    #[error("device {device} is in the list more than once: name each device once")]
    Duplicate {
        /// The device.
        device: DeviceSpec,
    },
}

/// Every device text.
pub(super) const DEVICES: &str = "cpu, auto, flex, ndarray, libtorch, libtorch:cuda:INDEX, libtorch:mps, cuda:INDEX, wgpu, wgpu:discrete:INDEX, wgpu:integrated:INDEX, wgpu:cpu";
