//! From a [`DeviceSpec`] to burn's device: the only place that names burn's backends.
//!
//! Each backend has one function, which is there whether the backend is compiled in or not.

use burn::tensor::Device;

use super::{DeviceError, DeviceSpec, LibTorchTarget};

impl DeviceSpec {
    /// The device that this stands for: `cpu` and `auto` become the backend chosen, others stay what they are.
    pub fn resolve(self) -> Result<Self, DeviceError> {
        match self {
            Self::Auto if cuda_count() > 0 => Ok(Self::LibTorch(LibTorchTarget::Cuda(0))),
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
            Self::Flex => flex(),
            Self::NdArray => ndarray(),
            Self::LibTorch(target) => libtorch(target),
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

#[cfg(feature = "flex")]
fn flex() -> Result<Device, DeviceError> {
    Ok(Device::flex())
}

#[cfg(not(feature = "flex"))]
fn flex() -> Result<Device, DeviceError> {
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
fn ndarray() -> Result<Device, DeviceError> {
    Ok(Device::ndarray())
}

#[cfg(not(feature = "ndarray"))]
fn ndarray() -> Result<Device, DeviceError> {
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
fn libtorch(target: LibTorchTarget) -> Result<Device, DeviceError> {
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
fn libtorch(target: LibTorchTarget) -> Result<Device, DeviceError> {
    Err(DeviceError::NotBuilt {
        device: DeviceSpec::LibTorch(target),
        feature: "libtorch",
    })
}

/// How many CUDA GPUs LibTorch sees; 0 where it is not compiled in.
#[cfg(feature = "libtorch")]
fn cuda_count() -> usize {
    use burn::tensor::DeviceType;

    std::panic::catch_unwind(|| Device::enumerate(DeviceType::LibTorch).into_vec().len())
        .unwrap_or(0)
}

#[cfg(not(feature = "libtorch"))]
fn cuda_count() -> usize {
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

#[cfg(test)]
mod tests {
    use super::*;

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
    #[cfg(not(target_os = "macos"))]
    fn a_missing_gpu_is_an_error() {
        for text in ["libtorch:cuda:60000", "libtorch:mps"] {
            let spec: DeviceSpec = text.parse().unwrap();
            let error = spec.device().unwrap_err();
            if cfg!(feature = "libtorch") {
                assert!(matches!(error, DeviceError::Unavailable { device, .. } if device == spec));
            } else {
                let feature = "libtorch";
                let device = spec;
                assert_eq!(error, DeviceError::NotBuilt { device, feature });
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
