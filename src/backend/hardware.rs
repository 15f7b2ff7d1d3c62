//! Finds out what hardware this machine offers.
//!
//! What an operating system or a driver must be asked for needs the feature `hardware`; what can't be found out is absent, and
//! never an error.

use crate::protocol::{Gpu, Hardware};

/// The LibTorch that this program is built against, such as `2.9.0+cu128`; none if it is built without.
pub(super) const LIBTORCH: Option<&str> = option_env!("FEDAVG_LIBTORCH");

impl Hardware {
    /// Takes the inventory of this machine. It takes milliseconds, or a second if NVML starts a sleeping driver.
    pub fn detect() -> Self {
        let mut hardware = Self {
            os: std::env::consts::OS.to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            logical_cores: std::thread::available_parallelism()
                .map_or(1, |cores| cores.get() as u32),
            gpus: detect_gpus().unwrap_or_default(),
            libtorch: LIBTORCH.map(str::to_string),
            ..Self::default()
        };
        ask_system(&mut hardware);
        hardware
    }
}

#[cfg(feature = "hardware")]
fn ask_system(hardware: &mut Hardware) {
    use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

    let system = System::new_with_specifics(
        RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing())
            .with_memory(MemoryRefreshKind::nothing().with_ram()),
    );
    let brand = system
        .cpus()
        .first()
        .map(|cpu| cpu.brand().trim().to_owned());
    hardware.cpu = brand.filter(|brand| !brand.is_empty());
    hardware.physical_cores = System::physical_core_count().map(|cores| cores as u32);
    let total = system.total_memory();
    // In a container the machine's memory is not what this process may use.
    let limit = system.cgroup_limits().map(|limits| limits.total_memory);
    hardware.memory_bytes = limit.map_or(total, |limit| limit.min(total));
}

#[cfg(not(feature = "hardware"))]
fn ask_system(_hardware: &mut Hardware) {}

/// The NVIDIA GPUs of this machine; none if NVML, and so the driver, is absent or refuses.
#[cfg(feature = "hardware")]
pub(super) fn detect_gpus() -> Option<Vec<Gpu>> {
    let nvml = nvml_wrapper::Nvml::init().ok()?;
    let driver = nvml.sys_driver_version().ok();
    let mut gpus = Vec::new();
    for index in 0..nvml.device_count().ok()? {
        let Ok(device) = nvml.device_by_index(index) else {
            continue;
        };
        let Ok(name) = device.name() else { continue };
        let capability = device.cuda_compute_capability().ok();
        gpus.push(Gpu {
            name,
            memory_bytes: device.memory_info().ok().map(|memory| memory.total),
            compute_capability: capability
                .map(|version| format!("{}.{}", version.major, version.minor)),
            driver: driver.clone(),
        });
    }
    Some(gpus)
}

#[cfg(not(feature = "hardware"))]
pub(super) fn detect_gpus() -> Option<Vec<Gpu>> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inventory_of_this_machine_is_plausible() {
        let hardware = Hardware::detect();
        eprintln!("{hardware:#?}");
        assert_eq!(hardware.os, std::env::consts::OS);
        assert!(hardware.logical_cores >= 1);
        assert!(
            hardware.memory_bytes > 64 << 20,
            "{} bytes",
            hardware.memory_bytes
        );
        for gpu in &hardware.gpus {
            assert!(!gpu.name.is_empty());
        }
    }

    #[test]
    fn json_round_trips_and_gpus_may_be_left_out() {
        let hardware = Hardware {
            gpus: vec![Gpu {
                name: "GeForce GTX 1080".to_owned(),
                memory_bytes: Some(8 << 30),
                compute_capability: Some("6.1".to_owned()),
                driver: None,
            }],
            ..Hardware::detect()
        };
        let json = serde_json::to_string(&hardware).unwrap();
        assert_eq!(serde_json::from_str::<Hardware>(&json).unwrap(), hardware);
        assert_eq!(hardware.gpu_count(), 1);

        let other: Hardware = serde_json::from_str(
            r#"{"os":"linux","arch":"x86_64","cpu":null,"physical_cores":null,"logical_cores":4,"memory_bytes":1}"#,
        )
        .unwrap();
        assert_eq!((other.gpu_count(), &other.libtorch), (0, &None));
    }
}
