//! What `auto` stands for on this machine, and why.

#[cfg(any(feature = "libtorch", test))]
use super::LibTorchTarget;
use super::{DeviceError, DeviceSpec, WgpuTarget};

/// The devices that `auto` stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Choice {
    /// At least one: all CUDA GPUs that proved themselves, else the CPU.
    pub devices: Vec<DeviceSpec>,
    /// Why these and no others, in a sentence for people.
    pub why: String,
}

impl DeviceSpec {
    /// What `auto` stands for here: every CUDA GPU that proves itself, through LibTorch if that is compiled in, else
    /// through burn's own backend; else the CPU; else, if no CPU backend is compiled in, the best GPU of `wgpu`.
    ///
    /// # Errors
    ///
    /// [`DeviceError`] if not even the last of these is to be had.
    pub fn choose() -> Result<Choice, DeviceError> {
        let (candidates, missing) = cuda_candidates();
        choose_from(candidates, missing, |device| device.device().map(drop))
    }
}

/// The CUDA devices to try, and why there is none if there is none.
fn cuda_candidates() -> (Vec<DeviceSpec>, String) {
    #[cfg(any(feature = "libtorch", feature = "cuda"))]
    let indices = |count: usize| 0..u16::try_from(count).unwrap_or(u16::MAX);
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
    if devices.is_empty() {
        let reason = if refused.is_empty() {
            missing
        } else {
            refused.join("; ")
        };
        let why = format!("no GPU is used: {reason}");
        let devices = match DeviceSpec::Cpu.resolve() {
            Ok(cpu) => vec![cpu],
            Err(_) if cfg!(feature = "wgpu") => vec![DeviceSpec::Wgpu(WgpuTarget::Best)],
            Err(error) => return Err(error),
        };
        return Ok(Choice { devices, why });
    }
    let mut why = "every CUDA GPU that works".to_string();
    if !refused.is_empty() {
        why.push_str(&format!("; left out: {}", refused.join("; ")));
    }
    Ok(Choice { devices, why })
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
