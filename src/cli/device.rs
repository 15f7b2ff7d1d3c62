//! The devices to train on: one or several, or what `auto` finds.

use clap::Args;

use super::{Failure, Screen};
use crate::backend::DeviceSpec;

/// The devices to train on.
#[derive(Debug, Clone, Args)]
pub struct DeviceArgs {
    /// The device to train on, or several, separated by commas: cpu, auto (every CUDA GPU that works, else the CPU),
    /// flex, ndarray, libtorch, libtorch:cuda:INDEX, libtorch:mps, cuda:INDEX, wgpu, wgpu:discrete:INDEX,
    /// wgpu:integrated:INDEX, wgpu:cpu. All but cpu, auto and flex need a build with that backend
    #[arg(
        long = "device",
        value_name = "DEVICE",
        default_value = "cpu",
        value_delimiter = ','
    )]
    pub devices: Vec<DeviceSpec>,
}

impl Default for DeviceArgs {
    fn default() -> Self {
        Self {
            devices: vec![DeviceSpec::Cpu],
        }
    }
}

impl DeviceArgs {
    /// The devices by their backends' names. Says what `auto` chose, and why.
    ///
    /// # Errors
    ///
    /// A device that this program was not built with, or `auto` beside others. Whether the devices work is seen when
    /// they are opened.
    pub fn resolve(&self, screen: &Screen) -> Result<Vec<DeviceSpec>, Failure> {
        if let [DeviceSpec::Auto] = self.devices[..] {
            let choice = DeviceSpec::choose().map_err(unusable)?;
            screen.note(&format!(
                "device auto: {}, {}",
                list(&choice.devices),
                choice.why
            ));
            return Ok(choice.devices);
        }
        if self.devices.contains(&DeviceSpec::Auto) {
            return Err(Failure::Usage(
                "--device auto can't be combined with other devices".to_string(),
            ));
        }
        let resolved = self.devices.iter().map(|device| device.resolve());
        resolved.collect::<Result<_, _>>().map_err(unusable)
    }
}

/// Devices for people: `libtorch:cuda:0, libtorch:cuda:1`.
pub(super) fn list(devices: &[DeviceSpec]) -> String {
    let names: Vec<_> = devices.iter().map(DeviceSpec::to_string).collect();
    names.join(", ")
}

fn unusable(error: crate::backend::DeviceError) -> Failure {
    Failure::unusable("--device", &error)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        device: DeviceArgs,
    }

    fn resolve(flag: &str) -> Result<Vec<DeviceSpec>, Failure> {
        let command = Command::try_parse_from(["test", flag]).unwrap();
        command.device.resolve(&Screen::new())
    }

    #[test]
    fn devices_are_a_list_in_which_cpu_means_a_backend() {
        let cpu = DeviceSpec::Cpu.resolve().unwrap();
        assert_eq!(resolve("--device=cpu").unwrap(), [cpu]);
        let gpus = resolve("--device=libtorch:cuda:0,libtorch:cuda:1").unwrap();
        assert_eq!(list(&gpus), "libtorch:cuda:0, libtorch:cuda:1");
        assert!(Command::try_parse_from(["test", "--device=cpu,tpu"]).is_err());
    }

    #[test]
    fn auto_is_something_that_works_and_is_given_alone() {
        assert!(!resolve("--device=auto").unwrap().is_empty());
        assert_eq!(resolve("--device=auto,cpu").unwrap_err().code(), 2);
    }
}
