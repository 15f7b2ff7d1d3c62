//! The LibTorch builds that are pinned in `scripts/libtorch-pins`, and which GPUs each has code for.

use std::fmt;

/// The pins, as the script that installs them reads them.
const PINS: &str = include_str!("../../scripts/libtorch-pins");

/// One pinned LibTorch build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// `current` or `legacy`: what `scripts/libtorch` is called with.
    pub name: &'static str,
    /// Its version, as in `2.9.0`.
    pub version: &'static str,
    /// The CUDA version of its GPU build, as in `12.8`.
    pub cuda: &'static str,
    /// The compute capabilities that its GPU build has code for.
    pub kernels: Vec<ComputeCapability>,
}

/// What generation of NVIDIA GPU it is, as in `6.1` for the GTX 1080.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ComputeCapability {
    /// The generation.
    pub major: u32,
    /// The variant within it.
    pub minor: u32,
}

impl Pin {
    /// Every pin, the current one first.
    pub fn all() -> Vec<Self> {
        ["current", "legacy"].map(Self::read).to_vec()
    }

    /// The pin of a LibTorch version such as `2.9.0+cu128`; what comes after the `+` does not count.
    pub fn of(libtorch: &str) -> Option<Self> {
        // The CPU build and the GPU build of a release are one pin.
        let version = libtorch.split('+').next();
        Self::all()
            .into_iter()
            .find(|pin| Some(pin.version) == version)
    }

    /// Whether a GPU of this capability finds code in this build. CUDA runs the code of the same generation and of a
    /// lower or equal variant.
    pub fn serves(&self, capability: ComputeCapability) -> bool {
        self.kernels
            .iter()
            .any(|code| code.major == capability.major && code.minor <= capability.minor)
    }

    /// The command that installs its build for CPUs or GPUs and sets the environment.
    pub fn command(&self) -> String {
        format!("eval \"$(scripts/libtorch {})\"", self.name)
    }

    fn read(name: &'static str) -> Self {
        let kernels = pinned(name, "kernels").split_whitespace();
        Self {
            name,
            version: pinned(name, "version"),
            cuda: pinned(name, "cuda"),
            kernels: kernels.filter_map(ComputeCapability::parse).collect(),
        }
    }
}

/// The value of a key of a pin; empty if the file has none.
fn pinned(name: &str, key: &str) -> &'static str {
    for line in PINS.lines() {
        let Some(rest) = line.strip_prefix(name) else {
            continue;
        };
        if let Some(value) = rest.trim_start().strip_prefix(key) {
            return value.trim();
        }
    }
    ""
}

impl ComputeCapability {
    /// From a text such as `6.1`.
    pub fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        })
    }
}

impl fmt::Display for ComputeCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serving(capability: &str) -> Vec<&'static str> {
        let capability = ComputeCapability::parse(capability).unwrap();
        let serving = Pin::all().into_iter().filter(|pin| pin.serves(capability));
        serving.map(|pin| pin.name).collect()
    }

    #[test]
    fn pascal_is_served_by_the_legacy_pin_alone_and_blackwell_by_the_current() {
        for (gpu, capability, pins) in [
            ("GTX 1080 Ti", "6.1", ["legacy"].as_slice()),
            ("GTX 980", "5.2", &["legacy"]),
            ("RTX 2080", "7.5", &["current", "legacy"]),
            ("A100", "8.0", &["current", "legacy"]),
            ("RTX 4090", "8.9", &["current", "legacy"]),
            ("H100", "9.0", &["current", "legacy"]),
            ("RTX 5090", "12.0", &["current"]),
            ("GTX 680", "3.0", &[]),
        ] {
            assert_eq!(serving(capability), pins, "{gpu}");
        }
    }

    #[test]
    fn pins_are_whole_and_found_by_version() {
        for pin in Pin::all() {
            assert!(!pin.version.is_empty() && !pin.cuda.is_empty(), "{pin:?}");
            assert!(!pin.kernels.is_empty(), "{pin:?}");
            let build = format!("{}+cpu", pin.version);
            assert_eq!(Pin::of(&build), Some(pin));
        }
        assert_eq!(Pin::of("1.13.1"), None);
    }

    /// The script checks what it downloads against this file.
    #[test]
    fn every_pinned_file_has_a_digest_and_an_address() {
        let files = PINS.lines().filter(|line| line.contains("://"));
        let mut count = 0;
        for line in files {
            let words: Vec<_> = line.split_whitespace().collect();
            let [pin, platform, needed_by, digest, address] = words[..] else {
                panic!("{line}");
            };
            assert!(["current", "legacy"].contains(&pin), "{line}");
            assert!(
                ["linux-x86_64", "macos-arm64"].contains(&platform),
                "{line}"
            );
            assert!(["both", "gpu"].contains(&needed_by), "{line}");
            assert!(
                digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()),
                "{line}"
            );
            assert!(
                address.starts_with("https://") && address.ends_with(".whl"),
                "{line}"
            );
            count += 1;
        }
        assert!(count > 20, "{count}");
    }
}
