//! How much address space this process took at most. Of the system, since an allocator that counts needs `unsafe`.

use std::fs;

/// Looks at the process, if it is alone in it.
pub(super) struct Memory {
    is_alone: bool,
}

impl Memory {
    /// `is_alone`: nothing else runs in this process, as `just fuzz` has it.
    pub(super) fn new(is_alone: bool) -> Self {
        Self { is_alone }
    }

    /// The most so far, in bytes.
    pub(super) fn start(&self) -> u64 {
        if self.is_alone { most() } else { 0 }
    }

    /// How many bytes more the most has become.
    pub(super) fn grown(&self, before: u64) -> u64 {
        if self.is_alone {
            most().saturating_sub(before)
        } else {
            0
        }
    }
}

/// `VmPeak`; 0 on systems without it.
fn most() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    for line in status.lines() {
        if let Some(rest) = line.strip_prefix("VmPeak:") {
            let kilobytes = rest.trim().trim_end_matches(" kB").parse::<u64>();
            return kilobytes.unwrap_or(0) << 10;
        }
    }
    0
}
