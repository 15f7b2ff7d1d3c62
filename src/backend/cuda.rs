//! Says why a CUDA device can't be used, and what to do about it.
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
        Self {
            libtorch: super::hardware::LIBTORCH.map(str::to_string),
            has_gpu_part: cfg!(libtorch_gpu),
            // LibTorch throws if its driver is broken, which is a panic here.
            visible: super::probe::quietly(libtorch_device_count).unwrap_or(0),
            ..Self::of_driver()
        }
    }

    /// What burn's own CUDA backend finds. It looks for the driver's library when it is first used, and not before.
    #[cfg(feature = "cuda")]
    pub fn of_burn() -> Self {
        Self {
            has_gpu_part: true,
            // burn panics if there is no driver.
            visible: super::probe::quietly(burn_device_count).unwrap_or(0),
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

    /// Why the GPU of this index can't be used, if that is known before trying.
    pub fn obstacle(&self, index: usize) -> Option<String> {
        if !self.has_gpu_part {
            return Some(self.no_gpu_part());
        }
        // CUDA numbers what `CUDA_VISIBLE_DEVICES` leaves, so that this is not the driver's index.
        if index < self.visible {
            return None;
        }
        if self.visible > 0 {
            return Some(format!(
                "there is no GPU {index}: CUDA shows {}, counted from 0",
                gpu_count(self.visible)
            ));
        }
        Some(self.nothing_visible())
    }

    /// The build is for CPUs.
    fn no_gpu_part(&self) -> String {
        let libtorch = self.libtorch.as_deref().unwrap_or_default();
        let pin = Pin::of(libtorch).map_or("current", |pin| pin.name);
        format!(
            "this program is built against LibTorch {libtorch}, which has no GPU part: install one that has with \
             `scripts/libtorch {pin} --gpu` and build again"
        )
    }

    /// CUDA shows no GPU; what the driver shows says why.
    fn nothing_visible(&self) -> String {
        let Some(gpus) = &self.driver else {
            return "there is no NVIDIA driver: CUDA shows no GPU, and the driver's library NVML can't be loaded".to_string();
        };
        let Some(first) = gpus.first() else {
            return "the NVIDIA driver shows no GPU: `nvidia-smi` says what it finds".to_string();
        };
        let shown = gpu_count(gpus.len());
        // Containers and shells set it to nothing, which hides every GPU.
        if let Some(restriction) = &self.restriction {
            return format!(
                "the NVIDIA driver shows {shown}, and CUDA none: CUDA_VISIBLE_DEVICES is {restriction:?}, so unset it or \
                 name a GPU there"
            );
        }
        let version = first.driver.as_deref().unwrap_or("of unknown version");
        format!(
            "the NVIDIA driver ({version}) shows {shown}, and CUDA none: the driver may be too old for this LibTorch; \
             update it"
        )
    }

    /// The error of a GPU that failed its proof with this message.
    pub fn explain(&self, device: DeviceSpec, index: usize, failure: &str) -> DeviceError {
        if !is_without_kernels(failure) {
            // The first line alone: LibTorch's call stack follows.
            let reason = failure.lines().next().unwrap_or_default().to_string();
            return DeviceError::Unavailable { device, reason };
        }
        let (gpu, capability) = match self.gpu(index) {
            Some(gpu) => (described(gpu), capability_of(gpu)),
            None => (format!("GPU {index}"), None),
        };
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

    /// The driver's GPU that CUDA's index most likely means, after it failed for lack of code.
    ///
    /// CUDA counts the fastest first and the driver by slot, so that an index names the same GPU in both only if all are alike
    /// and none is hidden. Otherwise it is the first GPU that this build has no code for.
    fn gpu(&self, index: usize) -> Option<&Gpu> {
        let gpus = self.driver.as_deref().unwrap_or_default();
        if are_alike(gpus) && self.restriction.is_none() {
            return gpus.get(index);
        }
        // The GPU that failed is one of these, whatever its index is in the driver's order.
        gpus.iter().find(|gpu| !self.surely_serves(gpu))
    }

    /// Whether this build is known to have code for this GPU.
    fn surely_serves(&self, gpu: &Gpu) -> bool {
        match (self.pin(), capability_of(gpu)) {
            (Some(pin), Some(capability)) => pin.serves(capability),
            _ => false,
        }
    }

    /// The pin that this program is built against.
    fn pin(&self) -> Option<Pin> {
        Pin::of(self.libtorch.as_deref()?)
    }

    /// Another pin that has code for this GPU.
    fn pin_for(&self, capability: Option<ComputeCapability>) -> Option<Pin> {
        let capability = capability?;
        let own = self.pin();
        Pin::all()
            .into_iter()
            .find(|pin| own.as_ref() != Some(pin) && pin.serves(capability))
    }
}

#[cfg(feature = "libtorch")]
fn libtorch_device_count() -> usize {
    // Nothing of LibTorch is called before it is known to be the right one.
    match super::libtorch::check_loaded() {
        Ok(()) => usize::try_from(tch::Cuda::device_count()).unwrap_or(0),
        Err(_) => 0,
    }
}

#[cfg(feature = "cuda")]
fn burn_device_count() -> usize {
    use burn::tensor::{Device, DeviceType};

    Device::enumerate(DeviceType::Cuda).into_vec().len()
}

/// `1 GPU`, `2 GPUs`.
fn gpu_count(gpus: usize) -> String {
    if gpus == 1 {
        "1 GPU".to_string()
    } else {
        format!("{gpus} GPUs")
    }
}

fn described(gpu: &Gpu) -> String {
    let capability = gpu.compute_capability.as_deref().unwrap_or("unknown");
    format!("{}, compute capability {capability}", gpu.name)
}

fn capability_of(gpu: &Gpu) -> Option<ComputeCapability> {
    ComputeCapability::parse(gpu.compute_capability.as_deref()?)
}

/// Whether all GPUs have one name and one capability.
fn are_alike(gpus: &[Gpu]) -> bool {
    for pair in gpus.windows(2) {
        if pair[0].name != pair[1].name || capability_of(&pair[0]) != capability_of(&pair[1]) {
            return false;
        }
    }
    true
}

/// What CUDA, LibTorch and burn say of a GPU that a build has no code for, in lower case.
const WITHOUT_KERNELS: [&str; 5] = [
    "no kernel image",
    "arch_mismatch",
    "not compiled with",
    "unsupported gpu architecture",
    "nobinaryforgpu",
];

/// Whether a failure says that a GPU has no code in this build.
fn is_without_kernels(failure: &str) -> bool {
    let failure = failure.to_lowercase();
    WITHOUT_KERNELS.iter().any(|part| failure.contains(part))
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
