//! A device as an operator writes it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::DeviceError;

/// Where to compute, as an operator writes it: `cpu`, `auto`, `flex`, `ndarray`, `libtorch`, `libtorch:cuda:0`,
/// `libtorch:mps`, `cuda:0`, `wgpu`, `wgpu:discrete:0`, `wgpu:integrated:0`, `wgpu:cpu`.
///
/// Parsing knows every device, whatever this binary was built with, so that a configuration can be read anywhere;
/// [`device`](Self::device) is where a device that is not compiled in is refused. Serialised as its text.
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
    /// The adapter that wgpu likes best, or that `CUBECL_WGPU_DEFAULT_DEVICE` names.
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
    /// Whether it computes elsewhere than on the CPU. `auto` may turn out to be either.
    pub fn is_gpu(self) -> bool {
        match self {
            Self::LibTorch(target) => target != LibTorchTarget::Cpu,
            Self::Wgpu(target) => target != WgpuTarget::Cpu,
            Self::Cuda(_) => true,
            Self::Auto | Self::Cpu | Self::Flex | Self::NdArray => false,
        }
    }
}

impl FromStr for DeviceSpec {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || DeviceError::Unknown {
            text: text.to_owned(),
        };
        Ok(match text {
            "cpu" => Self::Cpu,
            "auto" => Self::Auto,
            "flex" => Self::Flex,
            "ndarray" => Self::NdArray,
            "libtorch" => Self::LibTorch(LibTorchTarget::Cpu),
            "libtorch:mps" => Self::LibTorch(LibTorchTarget::Mps),
            "wgpu" => Self::Wgpu(WgpuTarget::Best),
            "wgpu:cpu" => Self::Wgpu(WgpuTarget::Cpu),
            _ => {
                let (kind, index) = text.rsplit_once(':').ok_or_else(unknown)?;
                // `parse` alone would take "+1" and "01", which would print as something else.
                let parsed: u16 = index.parse().map_err(|_| unknown())?;
                if parsed.to_string() != index {
                    return Err(unknown());
                }
                match kind {
                    "libtorch:cuda" => Self::LibTorch(LibTorchTarget::Cuda(parsed)),
                    "cuda" => Self::Cuda(parsed),
                    "wgpu:discrete" => Self::Wgpu(WgpuTarget::Discrete(parsed)),
                    "wgpu:integrated" => Self::Wgpu(WgpuTarget::Integrated(parsed)),
                    _ => return Err(unknown()),
                }
            }
        })
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

impl TryFrom<String> for DeviceSpec {
    type Error = DeviceError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<DeviceSpec> for String {
    fn from(spec: DeviceSpec) -> Self {
        spec.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [&str; 13] = [
        "cpu",
        "auto",
        "flex",
        "ndarray",
        "libtorch",
        "libtorch:cuda:0",
        "libtorch:cuda:12",
        "libtorch:mps",
        "cuda:0",
        "wgpu",
        "wgpu:discrete:1",
        "wgpu:integrated:0",
        "wgpu:cpu",
    ];

    #[test]
    fn text_display_and_json_are_inverses() {
        for text in ALL {
            let spec: DeviceSpec = text.parse().unwrap();
            assert_eq!(spec.to_string(), text);
            let json = serde_json::to_string(&spec).unwrap();
            assert_eq!(json, format!("{text:?}"));
            assert_eq!(serde_json::from_str::<DeviceSpec>(&json).unwrap(), spec);
        }
    }

    #[test]
    fn unknown_devices_are_refused_with_the_list_of_known_ones() {
        for text in [
            "",
            "gpu",
            "CPU",
            "cuda",
            "cuda:x",
            "wgpu:0",
            "wgpu:discrete",
            "libtorch:",
            "libtorch:cuda",
            "libtorch:cuda:",
            "libtorch:cuda:-1",
            "libtorch:cuda:+1",
            "libtorch:cuda:01",
            "libtorch:cuda:99999999",
        ] {
            let error = text.parse::<DeviceSpec>().unwrap_err();
            assert_eq!(
                error,
                DeviceError::Unknown {
                    text: text.to_owned()
                }
            );
            assert!(error.to_string().contains("libtorch:cuda:INDEX"));
        }
        assert!(serde_json::from_str::<DeviceSpec>(r#""tpu""#).is_err());
    }
}
