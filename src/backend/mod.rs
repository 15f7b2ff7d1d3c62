//! The devices that a worker computes on: their names, the burn device behind each, and what hardware there is.
//!
//! A [`DeviceSpec`] is a device as an operator writes it. [`DeviceSpec::device`] turns it into burn's
//! `Device`, or into an error that says what to do: a device that this binary was not built
//! with names the Cargo feature that it lacks. [`Hardware::detect`](crate::protocol::Hardware::detect) takes the inventory that a worker registers with, and
//! [`EnergyMeter::of`] measures what a device spends on each training.
//!
//! | text | burn backend | Cargo feature | use it for |
//! |---|---|---|---|
//! | `cpu` | the first of LibTorch, flex, ndarray that is compiled in | any of the three | the default |
//! | `auto` | every CUDA GPU that works, else `cpu` | any of the three | workers with or without a GPU |
//! | `flex` | burn-flex, pure Rust | `flex` (default) | CPUs without LibTorch |
//! | `ndarray` | burn-ndarray, pure Rust | `ndarray` | small dense models; its convolutions are slow |
//! | `libtorch` | LibTorch on the CPU | `libtorch` | the fastest CPU backend |
//! | `libtorch:cuda:0` | LibTorch on an NVIDIA GPU, by index | `libtorch` | NVIDIA GPUs |
//! | `libtorch:mps` | LibTorch on Apple's Metal | `libtorch` | Apple GPUs |
//! | `cuda:0` | burn-cuda, by index | `cuda` | NVIDIA GPUs without LibTorch |
//! | `wgpu`, `wgpu:discrete:0`, `wgpu:integrated:0`, `wgpu:cpu` | burn-wgpu, on Vulkan or Metal | `wgpu` | other GPUs |
//!
//! Against PyTorch 2.9 on the same two cores, the zoo's `cifar_cnn` trains at 0.74 (LibTorch), 0.47 (flex) and 0.013
//! (ndarray) of its speed, and `mlp` at 2.1, 1.85 and 1.1; `docs/performance.md` has the method. burn 0.22 deprecates
//! ndarray and LibTorch. `docs/backends.md` says what was run on which hardware.
//!
//! A device is given out once it has proven itself ([`DeviceSpec::device`]). LibTorch comes in two pinned builds
//! ([`Pin`]), and a program checks that it runs with the one that it is built against.
//!
//! Without the feature `burn` only the names of devices, the inventory and the energy are here.
//!
//! This folder is the only place that names a backend. It must never panic if a device is missing, and never treat missing
//! hardware as an error of the inventory.

#[cfg(feature = "burn")]
mod choose;
#[cfg(all(feature = "burn", any(feature = "libtorch", feature = "cuda", test)))]
mod cuda;
#[cfg(feature = "burn")]
mod device;
mod energy;
mod energy_source;
mod error;
mod hardware;
#[cfg(all(feature = "burn", any(feature = "libtorch", test)))]
mod libtorch;
#[cfg(feature = "hardware")]
mod nvml;
mod parse;
mod pin;
#[cfg(feature = "burn")]
mod probe;
#[cfg(feature = "burn")]
mod proof;
mod spec;
#[cfg(any(feature = "libtorch", test))]
mod version;

#[cfg(feature = "burn")]
pub use choose::Choice;
#[cfg(any(feature = "libtorch", feature = "cuda"))]
use cuda::Cuda;
pub use energy::{EnergyMeter, Metered};
pub use energy_source::EnergySource;
pub use error::DeviceError;
pub use pin::{ComputeCapability, Pin};
pub use spec::{DeviceSpec, LibTorchTarget, WgpuTarget};

/// Whether this thread is trying out a device, so that a panic is an answer: a device that is not there, or that can't compute.
/// The panic is caught. A program whose panic hook asks this first prints nothing of it; this library sets no hook of its own.
#[cfg(feature = "burn")]
pub fn is_probing() -> bool {
    probe::is_expected()
}
