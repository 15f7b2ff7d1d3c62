//! What a worker runs on.

use serde::{Deserialize, Serialize};

/// The hardware of one machine. What could not be found out is null or left out, or an empty list, and never an error.
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
    /// Main memory in bytes; a container's limit if there is one.
    pub memory_bytes: u64,
    /// NVIDIA GPUs, in NVML's order. Others are not found.
    #[serde(default)]
    pub gpus: Vec<Gpu>,
    /// The build of LibTorch that trains, such as `2.9.0 (CUDA 12.6)`, if one does.
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
    /// How many GPUs there are: what a `proportional` partition counts, unless it goes by measured speeds.
    pub fn gpu_count(&self) -> u32 {
        self.gpus.len() as u32
    }
}
