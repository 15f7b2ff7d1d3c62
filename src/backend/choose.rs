//! Which devices `auto` means on this machine, and why.

#[cfg(any(feature = "libtorch", test))]
use super::LibTorchTarget;
use super::{DeviceError, DeviceSpec, WgpuTarget};

/// The devices that `auto` means.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Choice {
    /// At least one: all CUDA GPUs that proved themselves, else the CPU.
    pub devices: Vec<DeviceSpec>,
    /// Why these and no others, in a sentence for people.
    pub why: String,
}

impl DeviceSpec {
    /// The devices that `auto` means here. The first of these that exist:
    ///
    /// 1. every CUDA GPU that proves itself, through LibTorch if that is compiled in, else through burn's own backend;
    /// 2. the CPU, if a CPU backend is compiled in;
    /// 3. the best GPU of `wgpu`, which has not been tried yet.
    ///
    /// # Errors
    ///
    /// [`DeviceError`] if this program has none of them.
    pub fn choose() -> Result<Choice, DeviceError> {
        let (candidates, missing) = cuda_candidates();
        // Tried out and not only counted: a GPU that can't compute would fail the worker's first task instead.
        choose_from(candidates, missing, |device| device.device().map(drop))
    }
}

/// The CUDA devices to try, or why there are none.
fn cuda_candidates() -> (Vec<DeviceSpec>, String) {
    #[cfg(feature = "libtorch")]
    {
        let cuda = super::Cuda::of_libtorch();
        let devices =
            indices(cuda.visible).map(|index| DeviceSpec::LibTorch(LibTorchTarget::Cuda(index)));
        (devices.collect(), cuda.obstacle(0).unwrap_or_default())
    }
    #[cfg(all(feature = "cuda", not(feature = "libtorch")))]
    {
        let cuda = super::Cuda::of_burn();
        let devices = indices(cuda.visible).map(DeviceSpec::Cuda);
        (devices.collect(), cuda.obstacle(0).unwrap_or_default())
    }
    #[cfg(not(any(feature = "libtorch", feature = "cuda")))]
    {
        let without = "this program is built without the features libtorch and cuda";
        (Vec::new(), without.to_string())
    }
}

/// The indices of this many GPUs, as far as a [`DeviceSpec`] can name them.
#[cfg(any(feature = "libtorch", feature = "cuda"))]
fn indices(count: usize) -> std::ops::Range<u16> {
    0..u16::try_from(count).unwrap_or(u16::MAX)
}

/// Chooses among the CUDA devices that `try_out` accepts. `missing` says why there are none to try, if so.
fn choose_from(
    cuda: Vec<DeviceSpec>,
    missing: String,
    try_out: impl Fn(DeviceSpec) -> Result<(), DeviceError>,
) -> Result<Choice, DeviceError> {
    let mut devices = Vec::new();
    let mut refused = Vec::new();
    for device in cuda {
        match try_out(device) {
            Ok(()) => devices.push(device),
            Err(error) => refused.push(error.to_string()),
        }
    }
    let refused = refused.join("; ");
    if devices.is_empty() {
        let reason = if refused.is_empty() { missing } else { refused };
        return Ok(Choice {
            devices: vec![without_cuda()?],
            why: format!("no GPU is used: {reason}"),
        });
    }
    let mut why = "every CUDA GPU that works".to_string();
    if !refused.is_empty() {
        why.push_str(&format!("; left out: {refused}"));
    }
    Ok(Choice { devices, why })
}

/// The device to use if no CUDA GPU works.
fn without_cuda() -> Result<DeviceSpec, DeviceError> {
    match DeviceSpec::Cpu.resolve() {
        // Last and untried: without a CPU backend there is nothing else, and it proves itself when it is given out.
        Err(_) if cfg!(feature = "wgpu") => Ok(DeviceSpec::Wgpu(WgpuTarget::Best)),
        cpu_or_error => cpu_or_error,
    }
}

#[cfg(all(test, any(feature = "flex", feature = "ndarray", feature = "libtorch")))]
mod tests {
    use super::*;

    fn gpus(count: u16) -> Vec<DeviceSpec> {
        (0..count)
            .map(|index| DeviceSpec::LibTorch(LibTorchTarget::Cuda(index)))
            .collect()
    }

    fn broken(device: DeviceSpec) -> DeviceError {
        DeviceError::Unavailable {
            device,
            reason: "broken".to_string(),
        }
    }

    #[test]
    fn all_gpus_that_work_are_taken_and_the_others_named() {
        let second_is_broken = |device| {
            if device == gpus(2)[1] {
                Err(broken(device))
            } else {
                Ok(())
            }
        };
        let choice = choose_from(gpus(3), String::new(), second_is_broken).unwrap();
        assert_eq!(choice.devices, [gpus(3)[0], gpus(3)[2]]);
        assert!(
            choice.why.contains("left out: device libtorch:cuda:1"),
            "{}",
            choice.why
        );
    }

    #[test]
    fn without_a_gpu_that_works_it_is_the_cpu_and_says_why() {
        let cpu = DeviceSpec::Cpu.resolve().unwrap();
        let choice = choose_from(gpus(1), String::new(), |device| Err(broken(device))).unwrap();
        assert_eq!(choice.devices, [cpu]);
        assert!(choice.why.contains("broken"), "{}", choice.why);

        let choice = choose_from(gpus(0), "there is no driver".to_string(), |_| Ok(())).unwrap();
        assert_eq!(choice.devices, [cpu]);
        assert_eq!(choice.why, "no GPU is used: there is no driver");
    }

    #[test]
    fn on_this_machine_it_is_something_that_works() {
        let choice = DeviceSpec::choose().unwrap();
        eprintln!("{choice:?}");
        assert!(!choice.devices.is_empty() && !choice.why.is_empty());
        choice.devices.iter().for_each(|device| {
            device.device().unwrap();
        });
    }
}
