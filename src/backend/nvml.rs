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
        let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
        let order = std::env::var("CUDA_DEVICE_ORDER").ok();
        let gpu = named(cuda, visible.as_deref(), order.as_deref())?;
        let index = position(&gpu, &uuids(&nvml)?)?;
        let mut source = Self { nvml, index };
        // Asked once already, since older GPUs are there and have no counter.
        if source.is_whole() && source.millijoules().is_some() {
            Some(source)
        } else {
            None
        }
    }

    /// Whether the GPU is not divided (MIG): the counter is the whole GPU's, and would count others' work.
    fn is_whole(&self) -> bool {
        let device = self.nvml.device_by_index(self.index);
        // GPUs that can't be divided answer this question with an error.
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
    let index = usize::from(cuda);
    let Some(visible) = visible else {
        return Some(by_place(index, order));
    };
    // CUDA reads the list as far as it is valid, so that entries after the device's do not matter and all before it do.
    let mut listed = Vec::new();
    for entry in visible.split(',').take(index + 1) {
        listed.push(entry_name(entry.trim(), order)?);
    }
    let found = listed.get(index)?;
    // CUDA refuses a list with a GPU in it more than once.
    if listed[..index].contains(found) {
        return None;
    }
    Some(found.clone())
}

/// The GPU that an entry of `CUDA_VISIBLE_DEVICES` names; none if it is no index and no UUID of a whole GPU.
fn entry_name(entry: &str, order: Option<&str>) -> Option<Name> {
    if let Ok(place) = entry.parse() {
        return Some(by_place(place, order));
    }
    if entry.starts_with("GPU-") && entry.len() > "GPU-".len() {
        return Some(Name::Uuid(entry.to_string()));
    }
    None
}

/// The GPU of this index, given `CUDA_DEVICE_ORDER`.
fn by_place(place: usize, order: Option<&str>) -> Name {
    match order {
        Some("PCI_BUS_ID") => Name::Pci(place),
        _ => Name::Fastest(place),
    }
}

/// NVML's index of the GPU of this name among all with these UUIDs.
fn position(gpu: &Name, uuids: &[String]) -> Option<u32> {
    let index = match gpu {
        Name::Pci(place) => *place,
        // With one GPU alone every order is the same.
        Name::Fastest(place) if uuids.len() == 1 => *place,
        // NVML has no such order. A guess would charge one GPU's energy to another one's trainings.
        Name::Fastest(_) => return None,
        Name::Uuid(beginning) => {
            let mut matching =
                (0..uuids.len()).filter(|index| uuids[*index].starts_with(beginning));
            let first = matching.next()?;
            // CUDA takes no beginning that fits more than one GPU, so there is no device to be metered either.
            if matching.next().is_some() {
                return None;
            }
            first
        }
    };
    if index < uuids.len() {
        Some(index as u32)
    } else {
        None
    }
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
