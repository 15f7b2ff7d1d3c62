//! Devices from their text.

use std::str::FromStr;

use super::{DeviceError, DeviceSpec, LibTorchTarget, WgpuTarget};

impl FromStr for DeviceSpec {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "cpu" => Self::Cpu,
            "auto" => Self::Auto,
            "flex" => Self::Flex,
            "ndarray" => Self::NdArray,
            "libtorch" => Self::LibTorch(LibTorchTarget::Cpu),
            "libtorch:mps" => Self::LibTorch(LibTorchTarget::Mps),
            "wgpu" => Self::Wgpu(WgpuTarget::Best),
            "wgpu:cpu" => Self::Wgpu(WgpuTarget::Cpu),
            _ => {
                let (kind, index) = text.rsplit_once(':').ok_or_else(|| unknown(text))?;
                // `parse` alone would take "+1" and "01", which would print as something else.
                let parsed: u16 = index.parse().map_err(|_| unknown(text))?;
                if parsed.to_string() != index {
                    return Err(unknown(text));
                }
                match kind {
                    "libtorch:cuda" => Self::LibTorch(LibTorchTarget::Cuda(parsed)),
                    "cuda" => Self::Cuda(parsed),
                    "wgpu:discrete" => Self::Wgpu(WgpuTarget::Discrete(parsed)),
                    "wgpu:integrated" => Self::Wgpu(WgpuTarget::Integrated(parsed)),
                    _ => return Err(unknown(text)),
                }
            }
        })
    }
}

fn unknown(text: &str) -> DeviceError {
    DeviceError::Unknown {
        text: text.to_owned(),
    }
}

impl TryFrom<String> for DeviceSpec {
    type Error = DeviceError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [&str; 13] = [
        "cpu",
        "auto",
        "flex",
        "ndarray",
        "libtorch",
        "libtorch:cuda:0",
        "libtorch:cuda:12",
        "libtorch:mps",
        "cuda:0",
        "wgpu",
        "wgpu:discrete:1",
        "wgpu:integrated:0",
        "wgpu:cpu",
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
            "cuda",
            "cuda:x",
            "wgpu:0",
            "wgpu:discrete",
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
