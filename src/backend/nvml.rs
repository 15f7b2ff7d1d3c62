//! The energy of NVIDIA GPUs, from their driver.

use nvml_wrapper::Nvml;

use super::{DeviceSpec, EnergySource, LibTorchTarget};

/// NVML's counter of one GPU, since its driver was loaded.
pub(super) struct NvmlEnergy {
    nvml: Nvml,
    index: u32,
}

impl NvmlEnergy {
    /// The counter of a device, if it is an NVIDIA GPU that surely is the one and works.
    pub(super) fn of(device: DeviceSpec) -> Option<Self> {
        match device {
            DeviceSpec::LibTorch(LibTorchTarget::Cuda(index)) | DeviceSpec::Cuda(index) => {
                Self::open(index)
            }
            _ => None,
        }
    }

    /// The counter of the GPU that CUDA knows by this index, if it surely is and works.
    fn open(cuda: u16) -> Option<Self> {
        let nvml = Nvml::init().ok()?;
        let variable = |name| std::env::var(name).ok();
        let gpu = named(
            cuda,
            variable("CUDA_VISIBLE_DEVICES").as_deref(),
            variable("CUDA_DEVICE_ORDER").as_deref(),
        )?;
        let index = position(&gpu, &uuids(&nvml)?)?;
        let mut source = Self { nvml, index };
        (source.is_whole() && source.millijoules().is_some()).then_some(source)
    }

    fn is_whole(&self) -> bool {
        let device = self.nvml.device_by_index(self.index);
        // GPUs that can't be divided say that they don't know the question.
        !device.is_ok_and(|device| device.mig_mode().is_ok_and(|mode| mode.current != 0))
    }
}

impl EnergySource for NvmlEnergy {
    fn millijoules(&mut self) -> Option<u64> {
        let device = self.nvml.device_by_index(self.index).ok()?;
        device.total_energy_consumption().ok()
    }
}

/// The UUIDs of all GPUs, in NVML's order; none if one can't be read, since it could be the one looked for.
fn uuids(nvml: &Nvml) -> Option<Vec<String>> {
    let count = nvml.device_count().ok()?;
    (0..count)
        .map(|index| nvml.device_by_index(index).ok()?.uuid().ok())
        .collect()
}

/// A GPU as the environment names it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    /// By its place in the order of PCI buses, which is NVML's.
    Pci(usize),
    /// By its place in CUDA's own order.
    Fastest(usize),
    /// By the beginning of its UUID.
    Uuid(String),
}

/// What CUDA's device of this index is called, given `CUDA_VISIBLE_DEVICES` and `CUDA_DEVICE_ORDER`; none if they do
/// not say it plainly.
fn named(cuda: u16, visible: Option<&str>, order: Option<&str>) -> Option<Name> {
    let by_place = |place| match order {
        Some("PCI_BUS_ID") => Name::Pci(place),
        _ => Name::Fastest(place),
    };
    let Some(visible) = visible else {
        return Some(by_place(usize::from(cuda)));
    };
    // CUDA reads the list as far as it is valid. What comes after the device does not matter.
    let listed: Vec<_> = visible
        .split(',')
        .take(usize::from(cuda) + 1)
        .map(|entry| {
            let entry = entry.trim();
            match entry.parse() {
                Ok(place) => Some(by_place(place)),
                Err(_) if entry.len() > "GPU-".len() && entry.starts_with("GPU-") => {
                    Some(Name::Uuid(entry.to_string()))
                }
                Err(_) => None,
            }
        })
        .collect::<Option<_>>()?;
    let found = listed.get(usize::from(cuda))?;
    let is_unique = listed.iter().filter(|name| *name == found).count() == 1;
    is_unique.then(|| found.clone())
}

/// NVML's index of the GPU of this name among all with these UUIDs.
fn position(gpu: &Name, uuids: &[String]) -> Option<u32> {
    let index = match gpu {
        Name::Pci(place) => *place,
        // If there is one alone, no order can mistake it.
        Name::Fastest(place) if uuids.len() == 1 => *place,
        Name::Fastest(_) => return None,
        Name::Uuid(beginning) => {
            let mut found = (0..uuids.len()).filter(|index| uuids[*index].starts_with(beginning));
            found.next().filter(|_| found.next().is_none())?
        }
    };
    (index < uuids.len()).then_some(index as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_says_which_gpu_is_meant_or_nobody_does() {
        let pci = Some("PCI_BUS_ID");
        assert_eq!(named(1, None, pci), Some(Name::Pci(1)));
        assert_eq!(named(1, None, None), Some(Name::Fastest(1)));
        assert_eq!(
            named(1, None, Some("FASTEST_FIRST")),
            Some(Name::Fastest(1))
        );
        assert_eq!(named(0, Some("3, 1"), pci), Some(Name::Pci(3)));
        assert_eq!(named(1, Some("3, 1"), pci), Some(Name::Pci(1)));
        assert_eq!(named(0, Some("2,nonsense"), pci), Some(Name::Pci(2)));
        let uuid = Some(Name::Uuid("GPU-8932f937".to_string()));
        assert_eq!(named(1, Some("0,GPU-8932f937"), None), uuid);
        for (cuda, visible) in [
            (0, ""),
            (0, "-1"),
            (1, "-1,0"),
            (1, "0"),
            (1, "0,0"),
            (0, "GPU-"),
            (0, "MIG-GPU-8932f937/1/0"),
            (0, "nonsense"),
        ] {
            assert_eq!(
                named(cuda, Some(visible), pci),
                None,
                "{cuda} of {visible:?}"
            );
        }
    }

    #[test]
    fn a_gpu_that_is_not_surely_the_one_has_no_counter() {
        let uuids = ["GPU-aa11", "GPU-aa22", "GPU-bb33"].map(str::to_string);
        let uuid = |text: &str| position(&Name::Uuid(text.to_string()), &uuids);
        assert_eq!((uuid("GPU-aa2"), uuid("GPU-bb33")), (Some(1), Some(2)));
        assert_eq!((uuid("GPU-aa"), uuid("GPU-cc")), (None, None));
        assert_eq!(position(&Name::Pci(2), &uuids), Some(2));
        assert_eq!(position(&Name::Pci(3), &uuids), None);
        assert_eq!(position(&Name::Fastest(0), &uuids), None);
        assert_eq!(position(&Name::Fastest(0), &uuids[..1]), Some(0));
        assert_eq!(position(&Name::Fastest(1), &uuids[..1]), None);
    }
}
