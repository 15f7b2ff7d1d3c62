//! A device, as an operator names it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A device to compute on, as an operator writes it: `cpu`, `auto`, `flex`, `ndarray`, `libtorch`, `libtorch:cuda:0`,
/// `libtorch:mps`, `cuda:0`, `wgpu`, `wgpu:discrete:0`, `wgpu:integrated:0`, `wgpu:cpu`.
///
/// Parsing knows every device, also those that this binary was built without, so that a configuration can be read
/// anywhere; [`device`](Self::device) refuses a device that is not compiled in. Serialised as its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum DeviceSpec {
    /// The fastest CPU backend that is compiled in: LibTorch, else flex, else ndarray.
    #[default]
    Cpu,
    /// The CUDA GPUs that work, else [`Cpu`](Self::Cpu): what [`DeviceSpec::choose`] says.
    Auto,
    /// burn-flex, on the CPU.
    Flex,
    /// burn-ndarray, on the CPU.
    NdArray,
    /// LibTorch.
    LibTorch(LibTorchTarget),
    /// burn's own CUDA backend, on the NVIDIA GPU of this index.
    Cuda(u16),
    /// burn's wgpu backend: Vulkan, Metal or DirectX.
    Wgpu(WgpuTarget),
}

/// What LibTorch computes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum LibTorchTarget {
    /// The CPU.
    #[default]
    Cpu,
    /// The NVIDIA GPU of this index, as CUDA counts them.
    Cuda(u16),
    /// Apple's Metal Performance Shaders.
    Mps,
}

/// What wgpu computes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum WgpuTarget {
    /// The adapter that wgpu prefers, or that `CUBECL_WGPU_DEFAULT_DEVICE` names.
    #[default]
    Best,
    /// The graphics card of this index.
    Discrete(u16),
    /// The GPU of this index that is part of a CPU.
    Integrated(u16),
    /// An adapter in software, such as Mesa's lavapipe.
    Cpu,
}

impl DeviceSpec {
    /// Whether it computes elsewhere than on the CPU. `auto` may mean either.
    pub fn is_gpu(self) -> bool {
        match self {
            Self::LibTorch(target) => target != LibTorchTarget::Cpu,
            Self::Wgpu(target) => target != WgpuTarget::Cpu,
            Self::Cuda(_) => true,
            Self::Auto | Self::Cpu | Self::Flex | Self::NdArray => false,
        }
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Auto => f.write_str("auto"),
            Self::Flex => f.write_str("flex"),
            Self::NdArray => f.write_str("ndarray"),
            Self::LibTorch(LibTorchTarget::Cpu) => f.write_str("libtorch"),
            Self::LibTorch(LibTorchTarget::Cuda(index)) => write!(f, "libtorch:cuda:{index}"),
            Self::LibTorch(LibTorchTarget::Mps) => f.write_str("libtorch:mps"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            Self::Wgpu(WgpuTarget::Best) => f.write_str("wgpu"),
            Self::Wgpu(WgpuTarget::Discrete(index)) => write!(f, "wgpu:discrete:{index}"),
            Self::Wgpu(WgpuTarget::Integrated(index)) => write!(f, "wgpu:integrated:{index}"),
            Self::Wgpu(WgpuTarget::Cpu) => f.write_str("wgpu:cpu"),
        }
    }
}

impl From<DeviceSpec> for String {
    fn from(spec: DeviceSpec) -> Self {
        spec.to_string()
    }
}
