//! From a [`DeviceSpec`] to burn's device: the only place that names burn's backends.
//!
//! Each backend has one function, which is there whether the backend is compiled in or not.

use burn::tensor::Device;

use super::{DeviceError, DeviceSpec, LibTorchTarget, WgpuTarget, proof::prove};

impl DeviceSpec {
    /// The device that this means: `cpu` and `auto` become a backend, others stay what they are. The log says what `auto`
    /// became, and why.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NotBuilt`] if no CPU backend is compiled in.
    pub fn resolve(self) -> Result<Self, DeviceError> {
        match self {
            Self::Auto => {
                let choice = Self::choose()?;
                tracing::info!(device = %choice.devices[0], why = choice.why, "device auto");
                Ok(choice.devices[0])
            }
            Self::Cpu if cfg!(feature = "libtorch") => Ok(Self::LibTorch(LibTorchTarget::Cpu)),
            Self::Cpu if cfg!(feature = "flex") => Ok(Self::Flex),
            Self::Cpu if cfg!(feature = "ndarray") => Ok(Self::NdArray),
            Self::Cpu => Err(not_built(self, "flex")),
            named => Ok(named),
        }
    }

    /// The burn device, without autodiff. Never panics.
    ///
    /// It has proven itself: a small convolution and its gradients came out right on it. That takes milliseconds on a
    /// CPU and seconds on a GPU that wakes up.
    ///
    /// # Errors
    ///
    /// [`DeviceError`]: it is not compiled in, it is not there, or it can't compute.
    pub fn device(self) -> Result<Device, DeviceError> {
        match self.resolve()? {
            Self::Flex => proven(Self::Flex, flex()?),
            Self::NdArray => proven(Self::NdArray, ndarray()?),
            Self::LibTorch(target) => libtorch(target),
            Self::Cuda(index) => cuda(index),
            Self::Wgpu(target) => {
                proven(Self::Wgpu(target), wgpu(target)?).map_err(without_adapter)
            }
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
        if cfg!(feature = "cuda") {
            built.push("cuda:INDEX");
        }
        if cfg!(feature = "wgpu") {
            built.extend([
                "wgpu",
                "wgpu:discrete:INDEX",
                "wgpu:integrated:INDEX",
                "wgpu:cpu",
            ]);
        }
        built
    }
}

fn not_built(device: DeviceSpec, feature: &'static str) -> DeviceError {
    DeviceError::NotBuilt { device, feature }
}

/// The device, once it has proven itself.
fn proven(spec: DeviceSpec, device: Device) -> Result<Device, DeviceError> {
    match prove(&device) {
        Ok(()) => Ok(device),
        Err(failure) => Err(DeviceError::Unavailable {
            device: spec,
            // LibTorch adds its call stack.
            reason: failure.lines().next().unwrap_or_default().to_string(),
        }),
    }
}

/// Says what is missing if there is no adapter: wgpu's thread then ends, and its waiters learn nothing but that.
fn without_adapter(error: DeviceError) -> DeviceError {
    match error {
        DeviceError::Unavailable { device, reason } if reason.contains("RecvError") => {
            let reason = "wgpu found no such adapter, or its driver failed (its own message is above): install a driver for \
                          Vulkan or Metal, or use another device";
            DeviceError::Unavailable {
                device,
                reason: reason.to_string(),
            }
        }
        other => other,
    }
}

#[cfg(feature = "flex")]
fn flex() -> Result<Device, DeviceError> {
    Ok(Device::flex())
}

#[cfg(not(feature = "flex"))]
fn flex() -> Result<Device, DeviceError> {
    Err(not_built(DeviceSpec::Flex, "flex"))
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
    Err(not_built(DeviceSpec::NdArray, "ndarray"))
}

#[cfg(feature = "libtorch")]
#[allow(
    deprecated,
    reason = "burn 0.22 deprecates the backend, which is still the fastest on CPUs and the one for NVIDIA GPUs"
)]
fn libtorch(target: LibTorchTarget) -> Result<Device, DeviceError> {
    let spec = DeviceSpec::LibTorch(target);
    // Before anything else of LibTorch is called.
    super::libtorch::check_loaded().map_err(|reason| DeviceError::OtherLibTorch { reason })?;
    match target {
        LibTorchTarget::Cpu => proven(spec, Device::libtorch()),
        LibTorchTarget::Cuda(index) => {
            let known = super::Cuda::of_libtorch();
            on_cuda(spec, index, &known, || {
                Device::libtorch_cuda(usize::from(index))
            })
        }
        LibTorchTarget::Mps if !tch::utils::has_mps() => Err(DeviceError::Unavailable {
            device: spec,
            reason: "this LibTorch has no Metal".to_string(),
        }),
        LibTorchTarget::Mps => proven(spec, Device::libtorch_mps()),
    }
}

#[cfg(not(feature = "libtorch"))]
fn libtorch(target: LibTorchTarget) -> Result<Device, DeviceError> {
    Err(not_built(DeviceSpec::LibTorch(target), "libtorch"))
}

#[cfg(feature = "cuda")]
fn cuda(index: u16) -> Result<Device, DeviceError> {
    let known = super::Cuda::of_burn();
    on_cuda(DeviceSpec::Cuda(index), index, &known, || {
        Device::cuda(usize::from(index))
    })
}

#[cfg(not(feature = "cuda"))]
fn cuda(index: u16) -> Result<Device, DeviceError> {
    Err(not_built(DeviceSpec::Cuda(index), "cuda"))
}

/// A CUDA device, with words for what can be wrong with one.
#[cfg(any(feature = "libtorch", feature = "cuda"))]
fn on_cuda(
    device: DeviceSpec,
    index: u16,
    known: &super::Cuda,
    make: impl FnOnce() -> Device,
) -> Result<Device, DeviceError> {
    let index = usize::from(index);
    // Before the device is made: a proof that fails only has the text of a panic, which does not say what to do.
    if let Some(reason) = known.obstacle(index) {
        return Err(DeviceError::Unavailable { device, reason });
    }
    let made = make();
    match prove(&made) {
        Ok(()) => Ok(made),
        Err(failure) => Err(known.explain(device, index, &failure)),
    }
}

#[cfg(feature = "wgpu")]
fn wgpu(target: WgpuTarget) -> Result<Device, DeviceError> {
    use burn::tensor::DeviceKind;

    Ok(Device::wgpu(match target {
        WgpuTarget::Best => DeviceKind::DefaultDevice,
        WgpuTarget::Discrete(index) => DeviceKind::DiscreteGpu(usize::from(index)),
        WgpuTarget::Integrated(index) => DeviceKind::IntegratedGpu(usize::from(index)),
        WgpuTarget::Cpu => DeviceKind::Cpu,
    }))
}

#[cfg(not(feature = "wgpu"))]
fn wgpu(target: WgpuTarget) -> Result<Device, DeviceError> {
    Err(not_built(DeviceSpec::Wgpu(target), "wgpu"))
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
                    assert_eq!(error, not_built(spec, feature));
                    assert!(error.to_string().contains(&format!("--features {feature}")));
                }
            }
        }
    }

    /// None of the machines that build this has so many GPUs; those that have one get as far as to count them.
    #[test]
    #[cfg(not(target_os = "macos"))]
    fn a_missing_gpu_is_an_error() {
        for (text, feature, built) in [
            (
                "libtorch:cuda:60000",
                "libtorch",
                cfg!(feature = "libtorch"),
            ),
            ("libtorch:mps", "libtorch", cfg!(feature = "libtorch")),
            ("cuda:60000", "cuda", cfg!(feature = "cuda")),
            ("wgpu:discrete:60000", "wgpu", cfg!(feature = "wgpu")),
        ] {
            let spec: DeviceSpec = text.parse().unwrap();
            let error = spec.device().unwrap_err();
            if built {
                assert!(
                    matches!(error, DeviceError::Unavailable { device, .. } if device == spec),
                    "{error}"
                )
            } else {
                assert_eq!(error, not_built(spec, feature))
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
            Err(not_built(DeviceSpec::Cpu, "flex"))
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
