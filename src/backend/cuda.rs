//! Why a CUDA device can't be had, in words that say what to do.
//!
//! What is known of build, driver and GPUs comes in as [`Cuda`], so that each answer can be tested without a GPU.

#[cfg(any(feature = "libtorch", feature = "cuda"))]
use super::hardware::detect_gpus;
use super::{ComputeCapability, DeviceError, DeviceSpec, Pin};
use crate::protocol::Gpu;

/// What this program and this machine have of CUDA.
#[derive(Debug, Clone, Default)]
pub(super) struct Cuda {
    /// The LibTorch that this program is built against, such as `2.9.0+cu128`; none for burn's own CUDA backend.
    pub libtorch: Option<String>,
    /// Whether that LibTorch has a GPU part.
    pub has_gpu_part: bool,
    /// How many GPUs the CUDA runtime shows.
    pub visible: usize,
    /// The GPUs that the driver shows; none if there is no driver.
    pub driver: Option<Vec<Gpu>>,
    /// `CUDA_VISIBLE_DEVICES`.
    pub restriction: Option<String>,
}

impl Cuda {
    /// What LibTorch finds.
    #[cfg(feature = "libtorch")]
    pub fn of_libtorch() -> Self {
        // Nothing of LibTorch is called before it is known to be the right one.
        let count = || match super::libtorch::check_loaded() {
            Ok(()) => tch::Cuda::device_count().max(0),
            Err(_) => 0,
        };
        Self {
            libtorch: super::hardware::LIBTORCH.map(str::to_string),
            has_gpu_part: cfg!(libtorch_gpu),
            visible: crate::panics::quietly(count).map_or(0, |count| count as usize),
            ..Self::of_driver()
        }
    }

    /// What burn's own CUDA backend finds. It looks for the driver's library when it is first used, and not before.
    #[cfg(feature = "cuda")]
    pub fn of_burn() -> Self {
        use burn::tensor::{Device, DeviceType};

        let count = || Device::enumerate(DeviceType::Cuda).into_vec().len();
        Self {
            has_gpu_part: true,
            visible: crate::panics::quietly(count).unwrap_or(0),
            ..Self::of_driver()
        }
    }

    #[cfg(any(feature = "libtorch", feature = "cuda"))]
    fn of_driver() -> Self {
        Self {
            driver: detect_gpus(),
            restriction: std::env::var("CUDA_VISIBLE_DEVICES").ok(),
            ..Self::default()
        }
    }

    /// Why there is no GPU of this index, if that is known before trying.
    pub fn obstacle(&self, index: usize) -> Option<String> {
        if index < self.visible && self.has_gpu_part {
            return None;
        }
        if !self.has_gpu_part {
            let libtorch = self.libtorch.as_deref().unwrap_or_default();
            let pin = Pin::of(libtorch).map_or("current", |pin| pin.name);
            return Some(format!(
                "this program is built against LibTorch {libtorch}, which has no GPU part: install one that has with \
                 `scripts/libtorch {pin} --gpu` and build again"
            ));
        }
        let count = |gpus: usize| match gpus {
            1 => "1 GPU".to_string(),
            gpus => format!("{gpus} GPUs"),
        };
        Some(match &self.driver {
            _ if self.visible > 0 => format!(
                "there is no GPU {index}: CUDA shows {}, counted from 0",
                count(self.visible)
            ),
            None => {
                "there is no NVIDIA driver: CUDA shows no GPU, and NVML is not there".to_string()
            }
            Some(gpus) if gpus.is_empty() => "the NVIDIA driver shows no GPU".to_string(),
            Some(gpus) => {
                let driver = gpus[0].driver.as_deref().unwrap_or("of unknown version");
                let shown = count(gpus.len());
                match &self.restriction {
                    Some(restriction) => format!(
                        "the NVIDIA driver shows {shown}, and CUDA none: CUDA_VISIBLE_DEVICES is {restriction:?}"
                    ),
                    None => format!(
                        "the NVIDIA driver ({driver}) shows {shown}, and CUDA none: the driver may be too old for this LibTorch"
                    ),
                }
            }
        })
    }

    /// What to say of a GPU that failed its proof.
    pub fn explain(&self, device: DeviceSpec, index: usize, failure: &str) -> DeviceError {
        if !is_without_kernels(failure) {
            // LibTorch adds its call stack.
            let reason = failure.lines().next().unwrap_or_default().to_string();
            return DeviceError::Unavailable { device, reason };
        }
        let (gpu, capability) = self.name(index);
        let build = match &self.libtorch {
            Some(libtorch) => format!("LibTorch {libtorch}"),
            None => "the CUDA toolkit of this program".to_string(),
        };
        let advice = match self.pin_for(capability) {
            Some(pin) => format!(
                "the {} pin has: `{}` installs LibTorch {}, and then build again",
                pin.name,
                pin.command(),
                pin.version,
            ),
            None => "no pinned LibTorch has; a build with feature `wgpu` may serve it".to_string(),
        };
        DeviceError::NoKernels {
            device,
            gpu,
            build,
            advice,
        }
    }

    /// The GPU of this index by name, and its capability. CUDA counts the fastest first and the driver by slot, so that
    /// among unlike GPUs the one that has no code in this build is meant.
    fn name(&self, index: usize) -> (String, Option<ComputeCapability>) {
        let gpus = self.driver.as_deref().unwrap_or_default();
        let capability =
            |gpu: &Gpu| ComputeCapability::parse(gpu.compute_capability.as_deref().unwrap_or(""));
        let here = self.libtorch.as_deref().and_then(Pin::of);
        let unserved = |gpu: &&Gpu| match (&here, capability(gpu)) {
            (Some(pin), Some(capability)) => !pin.serves(capability),
            _ => true,
        };
        let alike = gpus.windows(2).all(|pair| {
            pair[0].name == pair[1].name && capability(&pair[0]) == capability(&pair[1])
        });
        let found = if alike && self.restriction.is_none() {
            gpus.get(index)
        } else {
            gpus.iter().find(unserved)
        };
        let Some(gpu) = found else {
            return (format!("GPU {index}"), None);
        };
        let known = gpu.compute_capability.as_deref().unwrap_or("unknown");
        let text = format!("{}, compute capability {known}", gpu.name);
        (text, capability(gpu))
    }

    /// Another pin that has code for this GPU.
    fn pin_for(&self, capability: Option<ComputeCapability>) -> Option<Pin> {
        let capability = capability?;
        let here = self.libtorch.as_deref().and_then(Pin::of);
        Pin::all()
            .into_iter()
            .filter(|pin| here.as_ref() != Some(pin))
            .find(|pin| pin.serves(capability))
    }
}

/// Whether a failure says that a GPU has no code in this build.
fn is_without_kernels(failure: &str) -> bool {
    [
        "no kernel image",
        "ARCH_MISMATCH",
        "not compiled with",
        "unsupported gpu architecture",
        "NoBinaryForGpu",
    ]
    .iter()
    .any(|part| failure.to_lowercase().contains(&part.to_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::LibTorchTarget;

    fn gpu(name: &str, capability: &str) -> Gpu {
        Gpu {
            name: name.to_string(),
            memory_bytes: Some(8 << 30),
            compute_capability: Some(capability.to_string()),
            driver: Some("550.54.14".to_string()),
        }
    }

    fn machine(gpus: &[Gpu]) -> Cuda {
        Cuda {
            libtorch: Some("2.9.0+cu128".to_string()),
            has_gpu_part: true,
            visible: gpus.len(),
            driver: Some(gpus.to_vec()),
            restriction: None,
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let two = [gpu("A100", "8.0"), gpu("A100", "8.0")];
        let cpu_build = Cuda {
            libtorch: Some("2.9.0+cpu".to_string()),
            has_gpu_part: false,
            ..machine(&two)
        };
        let no_driver = Cuda {
            visible: 0,
            driver: None,
            ..machine(&[])
        };
        let hidden = Cuda {
            visible: 0,
            restriction: Some("".to_string()),
            ..machine(&two)
        };
        let old_driver = Cuda {
            visible: 0,
            ..machine(&two)
        };
        for (cuda, index, part) in [
            (&cpu_build, 0, "LibTorch 2.9.0+cpu, which has no GPU part"),
            (&no_driver, 0, "no NVIDIA driver"),
            (&machine(&[]), 0, "shows no GPU"),
            (&machine(&two), 2, "no GPU 2: CUDA shows 2 GPUs"),
            (&machine(&two[..1]), 1, "CUDA shows 1 GPU,"),
            (&hidden, 0, "CUDA_VISIBLE_DEVICES is \"\""),
            (
                &old_driver,
                0,
                "driver (550.54.14) shows 2 GPUs, and CUDA none: the driver may be too old",
            ),
        ] {
            let obstacle = cuda.obstacle(index).unwrap();
            assert!(obstacle.contains(part), "{obstacle}");
        }
        assert_eq!(machine(&two).obstacle(1), None);
    }

    const FAILURE: &str = "Torch(\"CUDA error: no kernel image is available for execution on the device\nCUDA kernel errors might be ...\")";

    fn explained(cuda: &Cuda, index: u16, failure: &str) -> String {
        let device = DeviceSpec::LibTorch(LibTorchTarget::Cuda(index));
        cuda.explain(device, usize::from(index), failure)
            .to_string()
    }

    #[test]
    fn a_gpu_without_kernels_is_named_with_its_capability_and_the_pin_that_serves_it() {
        let said = explained(
            &machine(&[gpu("NVIDIA GeForce GTX 1080", "6.1")]),
            0,
            FAILURE,
        );
        for part in [
            "device libtorch:cuda:0 (NVIDIA GeForce GTX 1080, compute capability 6.1)",
            "LibTorch 2.9.0+cu128 has no code for it",
            "the legacy pin has: `eval \"$(scripts/libtorch legacy)\"` installs LibTorch 2.7.1",
        ] {
            assert!(said.contains(part), "{said}");
        }

        // The other way round: a GPU that is too new for the legacy build.
        let legacy = Cuda {
            libtorch: Some("2.7.1+cu126".to_string()),
            ..machine(&[gpu("NVIDIA GeForce RTX 5090", "12.0")])
        };
        let said = explained(&legacy, 0, FAILURE);
        assert!(said.contains("scripts/libtorch current"), "{said}");

        let said = explained(&machine(&[gpu("GTX 680", "3.0")]), 0, FAILURE);
        assert!(said.contains("no pinned LibTorch has"), "{said}");
    }

    #[test]
    fn among_unlike_gpus_the_one_without_kernels_is_meant() {
        let mixed = machine(&[gpu("GTX 1080", "6.1"), gpu("RTX 4090", "8.9")]);
        // CUDA counts the fastest first: its GPU 1 is the driver's first.
        let said = explained(&mixed, 1, FAILURE);
        assert!(said.contains("(GTX 1080, compute"), "{said}");
    }

    #[test]
    fn other_failures_are_passed_on_in_one_line() {
        let a100 = machine(&[gpu("A100", "8.0")]);
        let said = explained(&a100, 0, "CUDA error: out of memory\nat ...");
        assert!(said.ends_with(": CUDA error: out of memory"), "{said}");
    }
}
