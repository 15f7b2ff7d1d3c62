//! Devices from their text.

use std::str::FromStr;

use super::{DeviceError, DeviceSpec, LibTorchTarget, WgpuTarget};

impl FromStr for DeviceSpec {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let device = match text {
            "cpu" => Some(Self::Cpu),
            "auto" => Some(Self::Auto),
            "flex" => Some(Self::Flex),
            "ndarray" => Some(Self::NdArray),
            "libtorch" => Some(Self::LibTorch(LibTorchTarget::Cpu)),
            "libtorch:mps" => Some(Self::LibTorch(LibTorchTarget::Mps)),
            "wgpu" => Some(Self::Wgpu(WgpuTarget::Best)),
            "wgpu:cpu" => Some(Self::Wgpu(WgpuTarget::Cpu)),
            _ => with_index(text),
        };
        device.ok_or_else(|| DeviceError::Unknown {
            text: text.to_owned(),
        })
    }
}

/// The device of a text that ends with an index, such as `libtorch:cuda:0`.
fn with_index(text: &str) -> Option<DeviceSpec> {
    let (kind, digits) = text.rsplit_once(':')?;
    let index: u16 = digits.parse().ok()?;
    // `parse` takes "+1" and "01" too, which would print as something else.
    if index.to_string() != digits {
        return None;
    }
    match kind {
        "libtorch:cuda" => Some(DeviceSpec::LibTorch(LibTorchTarget::Cuda(index))),
        "cuda" => Some(DeviceSpec::Cuda(index)),
        "wgpu:discrete" => Some(DeviceSpec::Wgpu(WgpuTarget::Discrete(index))),
        "wgpu:integrated" => Some(DeviceSpec::Wgpu(WgpuTarget::Integrated(index))),
        _ => None,
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
