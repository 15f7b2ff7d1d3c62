//! A device as text, and the burn device behind it.

use std::fmt;
use std::str::FromStr;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

/// Where to compute, as an operator writes it: `cpu`, `auto`, `flex`, `ndarray`, `libtorch`, `libtorch:cuda:0`,
/// `libtorch:mps`.
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
    /// The first CUDA GPU that LibTorch sees, where it is compiled in and sees one; else [`Cpu`](Self::Cpu).
    Auto,
    /// burn-flex, on the CPU.
    Flex,
    /// burn-ndarray, on the CPU.
    NdArray,
    /// LibTorch.
    LibTorch(LibTorchTarget),
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
}

impl DeviceSpec {
    /// The device that this stands for: `cpu` and `auto` become the backend chosen, others stay what they are.
    pub fn resolve(self) -> Result<Self, DeviceError> {
        match self {
            Self::Auto if burn_devices::cuda_count() > 0 => {
                Ok(Self::LibTorch(LibTorchTarget::Cuda(0)))
            }
            Self::Cpu | Self::Auto if cfg!(feature = "libtorch") => {
                Ok(Self::LibTorch(LibTorchTarget::Cpu))
            }
            Self::Cpu | Self::Auto if cfg!(feature = "flex") => Ok(Self::Flex),
            Self::Cpu | Self::Auto if cfg!(feature = "ndarray") => Ok(Self::NdArray),
            Self::Cpu | Self::Auto => Err(DeviceError::NotBuilt {
                device: self,
                feature: "flex",
            }),
            named => Ok(named),
        }
    }

    /// The burn device, without autodiff. Never panics.
    ///
    /// GPUs are looked for, and a first tensor is made on them, so that a worker that starts has a device that works.
    pub fn device(self) -> Result<Device, DeviceError> {
        match self.resolve()? {
            Self::Flex => burn_devices::flex(),
            Self::NdArray => burn_devices::ndarray(),
            Self::LibTorch(target) => burn_devices::libtorch(target),
            Self::Cpu | Self::Auto => unreachable!("resolve() names a backend"),
        }
    }

    /// Every device text that this binary was built with, for messages and `--help`.
    pub fn built() -> Vec<&'static str> {
        let mut built = Vec::new();
        if cfg!(any(
            feature = "flex",
            feature = "ndarray",
            feature = "libtorch"
        )) {
            built.extend(["cpu", "auto"]);
        }
        if cfg!(feature = "flex") {
            built.push("flex");
        }
        if cfg!(feature = "ndarray") {
            built.push("ndarray");
        }
        if cfg!(feature = "libtorch") {
            built.extend(["libtorch", "libtorch:cuda:INDEX", "libtorch:mps"]);
        }
        built
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
            _ => {
                let index = text.strip_prefix("libtorch:cuda:").ok_or_else(unknown)?;
                // `parse` alone would take "+1" and "01", which would print as something else.
                let parsed: u16 = index.parse().map_err(|_| unknown())?;
                if parsed.to_string() != index {
                    return Err(unknown());
                }
                Self::LibTorch(LibTorchTarget::Cuda(parsed))
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

/// One function per backend, the same whether it is compiled in or not.
mod burn_devices {
    use super::{Device, DeviceError, DeviceSpec, LibTorchTarget};

    #[cfg(feature = "flex")]
    pub(super) fn flex() -> Result<Device, DeviceError> {
        Ok(Device::flex())
    }

    #[cfg(not(feature = "flex"))]
    pub(super) fn flex() -> Result<Device, DeviceError> {
        Err(DeviceError::NotBuilt {
            device: DeviceSpec::Flex,
            feature: "flex",
        })
    }

    #[cfg(feature = "ndarray")]
    #[allow(
        deprecated,
        reason = "burn 0.22 deprecates the backend, which is still first-class here until burn drops it"
    )]
    pub(super) fn ndarray() -> Result<Device, DeviceError> {
        Ok(Device::ndarray())
    }

    #[cfg(not(feature = "ndarray"))]
    pub(super) fn ndarray() -> Result<Device, DeviceError> {
        Err(DeviceError::NotBuilt {
            device: DeviceSpec::NdArray,
            feature: "ndarray",
        })
    }

    #[cfg(feature = "libtorch")]
    #[allow(
        deprecated,
        reason = "burn 0.22 deprecates the backend, which is still the fastest on CPUs and the one for NVIDIA GPUs"
    )]
    pub(super) fn libtorch(target: LibTorchTarget) -> Result<Device, DeviceError> {
        match target {
            LibTorchTarget::Cpu => Ok(Device::libtorch()),
            LibTorchTarget::Cuda(index) => {
                let count = cuda_count();
                if usize::from(index) >= count {
                    return Err(DeviceError::Unavailable {
                        device: DeviceSpec::LibTorch(target),
                        reason: format!("LibTorch sees {count} CUDA GPUs"),
                    });
                }
                probed(target, Device::libtorch_cuda(usize::from(index)))
            }
            LibTorchTarget::Mps => probed(target, Device::libtorch_mps()),
        }
    }

    #[cfg(not(feature = "libtorch"))]
    pub(super) fn libtorch(target: LibTorchTarget) -> Result<Device, DeviceError> {
        Err(DeviceError::NotBuilt {
            device: DeviceSpec::LibTorch(target),
            feature: "libtorch",
        })
    }

    /// How many CUDA GPUs LibTorch sees; 0 where it is not compiled in.
    #[cfg(feature = "libtorch")]
    pub(super) fn cuda_count() -> usize {
        use burn::tensor::DeviceType;

        std::panic::catch_unwind(|| Device::enumerate(DeviceType::LibTorch).into_vec().len())
            .unwrap_or(0)
    }

    #[cfg(not(feature = "libtorch"))]
    pub(super) fn cuda_count() -> usize {
        0
    }

    /// Makes one tensor on the device and reads it back: burn panics at the first use of a device that is missing.
    #[cfg(feature = "libtorch")]
    fn probed(target: LibTorchTarget, device: Device) -> Result<Device, DeviceError> {
        use std::panic::AssertUnwindSafe;

        use burn::tensor::Tensor;

        let probe = AssertUnwindSafe(|| Tensor::<1>::ones([1], &device).into_data());
        match std::panic::catch_unwind(probe) {
            Ok(_) => Ok(device),
            Err(panic) => {
                let text = panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| panic.downcast_ref::<&str>().copied())
                    .unwrap_or("the first tensor on it failed");
                Err(DeviceError::Unavailable {
                    device: DeviceSpec::LibTorch(target),
                    reason: text.lines().next().unwrap_or_default().to_owned(),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [&str; 8] = [
        "cpu",
        "auto",
        "flex",
        "ndarray",
        "libtorch",
        "libtorch:cuda:0",
        "libtorch:cuda:12",
        "libtorch:mps",
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
            "cuda:0",
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

    /// What is compiled in works; what is not is an error that names the feature, never a panic.
    #[test]
    fn every_device_is_there_or_names_its_feature() {
        for (text, feature, built) in [
            ("flex", "flex", cfg!(feature = "flex")),
            ("ndarray", "ndarray", cfg!(feature = "ndarray")),
            ("libtorch", "libtorch", cfg!(feature = "libtorch")),
        ] {
            let spec: DeviceSpec = text.parse().unwrap();
            match spec.device() {
                Ok(device) => {
                    assert!(built, "{text}");
                    let ones = burn::tensor::Tensor::<1>::ones([3], &device);
                    assert_eq!(ones.sum().into_scalar::<f32>(), 3.0);
                }
                Err(error) => {
                    assert!(!built, "{text}: {error}");
                    assert_eq!(
                        error,
                        DeviceError::NotBuilt {
                            device: spec,
                            feature
                        }
                    );
                    assert!(error.to_string().contains(&format!("--features {feature}")));
                }
            }
        }
    }

    #[test]
    fn a_missing_gpu_is_an_error() {
        for text in ["libtorch:cuda:60000", "libtorch:mps"] {
            let spec: DeviceSpec = text.parse().unwrap();
            if cfg!(all(feature = "libtorch", target_os = "macos")) {
                continue;
            }
            match spec.device() {
                Err(DeviceError::Unavailable { device, .. }) => {
                    assert!(cfg!(feature = "libtorch"));
                    assert_eq!(device, spec);
                }
                Err(DeviceError::NotBuilt { feature, .. }) => {
                    assert!(cfg!(not(feature = "libtorch")));
                    assert_eq!(feature, "libtorch");
                }
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn cpu_is_the_fastest_backend_compiled_in() {
        let expected = if cfg!(feature = "libtorch") {
            Ok(DeviceSpec::LibTorch(LibTorchTarget::Cpu))
        } else if cfg!(feature = "flex") {
            Ok(DeviceSpec::Flex)
        } else if cfg!(feature = "ndarray") {
            Ok(DeviceSpec::NdArray)
        } else {
            Err(DeviceError::NotBuilt {
                device: DeviceSpec::Cpu,
                feature: "flex",
            })
        };
        assert_eq!(DeviceSpec::Cpu.resolve(), expected);
        assert_eq!(
            DeviceSpec::built().contains(&"cpu"),
            expected.is_ok(),
            "{:?}",
            DeviceSpec::built()
        );
    }
}
