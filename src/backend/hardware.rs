//! What hardware this machine offers, as a worker registers it.

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use serde::{Deserialize, Serialize};
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

/// The LibTorch that this program is built against, such as `2.9.0+cu128`; none where it is built without.
pub(super) const LIBTORCH: Option<&str> = option_env!("FEDAVG_LIBTORCH");

/// The hardware of one machine. What could not be found out is `None`, or an empty list, and never an error.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct Hardware {
    /// Operating system, as Rust names it: `linux`, `macos`, `windows`.
    pub os: String,
    /// Instruction set, as Rust names it: `x86_64`, `aarch64`.
    pub arch: String,
    /// The CPU's model name.
    pub cpu: Option<String>,
    /// Cores of the machine, hyper-threads not counted.
    pub physical_cores: Option<u32>,
    /// Threads that this process may run at once: affinity and container limits are counted in.
    pub logical_cores: u32,
    /// Main memory in bytes; a container's limit where there is one.
    pub memory_bytes: u64,
    /// NVIDIA GPUs, in NVML's order. Others are not found.
    #[serde(default)]
    pub gpus: Vec<Gpu>,
    /// The build of LibTorch that trains, such as `2.9.0 (CUDA 12.6)`, where one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub libtorch: Option<String>,
}

/// One NVIDIA GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct Gpu {
    /// Its model name.
    pub name: String,
    /// Its memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Its compute capability, as in `6.1` for Pascal.
    pub compute_capability: Option<String>,
    /// The version of its driver.
    pub driver: Option<String>,
}

impl Hardware {
    /// Takes the inventory of this machine. It takes milliseconds, or a second where NVML starts a sleeping driver.
    pub fn detect() -> Self {
        let system = System::new_with_specifics(
            RefreshKind::nothing()
                .with_cpu(CpuRefreshKind::nothing())
                .with_memory(MemoryRefreshKind::nothing().with_ram()),
        );
        let limit = system.cgroup_limits().map(|limits| limits.total_memory);
        Self {
            os: std::env::consts::OS.to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            cpu: system
                .cpus()
                .first()
                .map(|cpu| cpu.brand().trim().to_owned())
                .filter(|brand| !brand.is_empty()),
            physical_cores: System::physical_core_count().map(|cores| cores as u32),
            logical_cores: std::thread::available_parallelism()
                .map_or(1, |cores| cores.get() as u32),
            memory_bytes: limit.map_or(system.total_memory(), |limit| {
                limit.min(system.total_memory())
            }),
            gpus: Gpu::detect().unwrap_or_default(),
            libtorch: LIBTORCH.map(str::to_string),
        }
    }

    /// How many GPUs there are: what a `proportional` partition counts, unless it goes by measured speeds.
    pub fn gpu_count(&self) -> u32 {
        self.gpus.len() as u32
    }
}

impl Gpu {
    /// The NVIDIA GPUs of this machine; `None` where NVML, and so the driver, is absent or refuses.
    pub(super) fn detect() -> Option<Vec<Self>> {
        Self::read_all().ok()
    }

    fn read_all() -> Result<Vec<Self>, NvmlError> {
        let nvml = Nvml::init()?;
        let driver = nvml.sys_driver_version().ok();
        let count = nvml.device_count()?;
        Ok((0..count)
            .filter_map(|index| {
                let device = nvml.device_by_index(index).ok()?;
                let capability = device.cuda_compute_capability().ok();
                Some(Self {
                    name: device.name().ok()?,
                    memory_bytes: device.memory_info().ok().map(|memory| memory.total),
                    compute_capability: capability
                        .map(|version| format!("{}.{}", version.major, version.minor)),
                    driver: driver.clone(),
                })
            })
            .collect())
    }
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
