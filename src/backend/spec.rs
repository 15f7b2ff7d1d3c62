//! A device as an operator writes it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::DeviceError;

/// Where to compute, as an operator writes it: `cpu`, `auto`, `flex`, `ndarray`, `libtorch`, `libtorch:cuda:0`,
/// `libtorch:mps`.
///
/// Parsing knows every device, whatever this binary was built with, so that a configuration can be read anywhere;
/// [`device`](Self::device) is where a device that is not compiled in is refused. Serialised as its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum DeviceSpec {
    /// The fastest CPU backend that is compiled in: LibTorch, else flex, else ndarray.
    #[default]
    Cpu,
    /// The first CUDA GPU that LibTorch sees, where it is compiled in and sees one; else [`Cpu`](Self::Cpu).
    Auto,
    /// burn-flex, on the CPU.
    Flex,
    /// burn-ndarray, on the CPU.
    NdArray,
    /// LibTorch.
    LibTorch(LibTorchTarget),
}

/// What LibTorch computes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum LibTorchTarget {
    /// The CPU.
    #[default]
    Cpu,
    /// The NVIDIA GPU of this index, as CUDA counts them.
    Cuda(u16),
    /// Apple's Metal Performance Shaders.
    Mps,
}

impl FromStr for DeviceSpec {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || DeviceError::Unknown {
            text: text.to_owned(),
        };
        Ok(match text {
            "cpu" => Self::Cpu,
            "auto" => Self::Auto,
            "flex" => Self::Flex,
            "ndarray" => Self::NdArray,
            "libtorch" => Self::LibTorch(LibTorchTarget::Cpu),
            "libtorch:mps" => Self::LibTorch(LibTorchTarget::Mps),
            _ => {
                let index = text.strip_prefix("libtorch:cuda:").ok_or_else(unknown)?;
                // `parse` alone would take "+1" and "01", which would print as something else.
                let parsed: u16 = index.parse().map_err(|_| unknown())?;
                if parsed.to_string() != index {
                    return Err(unknown());
                }
                Self::LibTorch(LibTorchTarget::Cuda(parsed))
            }
        })
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Auto => f.write_str("auto"),
            Self::Flex => f.write_str("flex"),
            Self::NdArray => f.write_str("ndarray"),
            Self::LibTorch(LibTorchTarget::Cpu) => f.write_str("libtorch"),
            Self::LibTorch(LibTorchTarget::Cuda(index)) => write!(f, "libtorch:cuda:{index}"),
            Self::LibTorch(LibTorchTarget::Mps) => f.write_str("libtorch:mps"),
        }
    }
}

impl TryFrom<String> for DeviceSpec {
    type Error = DeviceError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<DeviceSpec> for String {
    fn from(spec: DeviceSpec) -> Self {
        spec.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [&str; 8] = [
        "cpu",
        "auto",
        "flex",
        "ndarray",
        "libtorch",
        "libtorch:cuda:0",
        "libtorch:cuda:12",
        "libtorch:mps",
    ];

    #[test]
    fn text_display_and_json_are_inverses() {
        for text in ALL {
            let spec: DeviceSpec = text.parse().unwrap();
            assert_eq!(spec.to_string(), text);
            let json = serde_json::to_string(&spec).unwrap();
            assert_eq!(json, format!("{text:?}"));
            assert_eq!(serde_json::from_str::<DeviceSpec>(&json).unwrap(), spec);
        }
    }

    #[test]
    fn unknown_devices_are_refused_with_the_list_of_known_ones() {
        for text in [
            "",
            "gpu",
            "CPU",
            "cuda:0",
            "libtorch:",
            "libtorch:cuda",
            "libtorch:cuda:",
            "libtorch:cuda:-1",
            "libtorch:cuda:+1",
            "libtorch:cuda:01",
            "libtorch:cuda:99999999",
        ] {
            let error = text.parse::<DeviceSpec>().unwrap_err();
            assert_eq!(
                error,
                DeviceError::Unknown {
                    text: text.to_owned()
                }
            );
            assert!(error.to_string().contains("libtorch:cuda:INDEX"));
        }
        assert!(serde_json::from_str::<DeviceSpec>(r#""tpu""#).is_err());
    }
}
