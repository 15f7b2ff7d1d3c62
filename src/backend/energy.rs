//! How much energy a device spends on a training.
//!
//! An [`EnergySource`] counts what the whole device spends; an [`EnergyMeter`] divides that equally over the trainings
//! that run on the device at the time. So what trainings beside each other spent adds up to what the device spent while
//! at least one of them ran, the power that it draws when idle and all else that it does included: evaluations, and
//! other programs. What is not known is absent, never an estimate: CPUs have no source, nor GPUs before NVIDIA's Volta,
//! whose power can be read but whose energy is not counted.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{DeviceSpec, EnergySource};

/// Divides the energy of one device over the trainings on it.
///
/// The meter has a clock that counts millijoules instead of seconds: from one begin or end of a training to the next it
/// moves on by what the device spent meanwhile, divided by the number of trainings that ran. A training's energy is the
/// clock at its end minus that at its begin.
pub struct EnergyMeter(Mutex<Counting>);

impl fmt::Debug for EnergyMeter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("EnergyMeter")
            .finish_non_exhaustive()
    }
}

/// What the meter knows, under its lock.
struct Counting {
    source: Box<dyn EnergySource>,
    active: u32,
    /// What the source said last; none if it could not be read.
    last: Option<u64>,
    /// Millijoules for each of the trainings that run.
    clock: f64,
    /// Stretches with a training whose energy is not known. A training during which one falls has no energy.
    gaps: u64,
}

/// A training that is being metered. It ends when this is dropped, if not before.
pub struct Metered {
    meter: Arc<EnergyMeter>,
    clock: f64,
    gaps: u64,
    ended: bool,
}

impl fmt::Debug for Metered {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Metered").finish_non_exhaustive()
    }
}

impl EnergyMeter {
    /// A meter of this source.
    pub fn new(source: impl EnergySource + 'static) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Counting {
            source: Box::new(source),
            active: 0,
            last: None,
            clock: 0.0,
            gaps: 0,
        })))
    }

    /// The meter of a device, if there is one: an NVIDIA GPU whose NVML counter can be read and is surely its own, in a program with the feature `hardware`.
    ///
    /// Make one for each device of a process: two meters would each take all of the device's energy for theirs.
    ///
    /// CUDA and NVML number GPUs differently: CUDA by `CUDA_VISIBLE_DEVICES` and, unless `CUDA_DEVICE_ORDER` is
    /// `PCI_BUS_ID`, the fastest first. So on a machine with several GPUs one of these has to say which is which:
    /// `CUDA_DEVICE_ORDER=PCI_BUS_ID`, or UUIDs in `CUDA_VISIBLE_DEVICES`. A GPU that is divided (MIG) has no meter.
    pub fn of(device: DeviceSpec) -> Option<Arc<Self>> {
        counter(device)
    }

    /// A training begins on the device.
    pub fn begin(self: &Arc<Self>) -> Metered {
        let mut counting = self.counting();
        counting.advance();
        counting.active += 1;
        Metered {
            meter: self.clone(),
            clock: counting.clock,
            gaps: counting.gaps,
            ended: false,
        }
    }

    fn counting(&self) -> MutexGuard<'_, Counting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Metered {
    /// The training has ended: the joules that it spent, if they are known.
    ///
    /// A counter moves on some ten times a second, so that of trainings much shorter than that many have nothing and
    /// some more than theirs; in a sum they even out.
    pub fn end(mut self) -> Option<f64> {
        self.close()
    }

    fn close(&mut self) -> Option<f64> {
        // A training that ended is dropped, too, and must not count as two.
        if std::mem::replace(&mut self.ended, true) {
            return None;
        }
        let mut counting = self.meter.counting();
        counting.advance();
        counting.active -= 1;
        if counting.gaps != self.gaps {
            return None;
        }
        Some((counting.clock - self.clock) / 1000.0)
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.close();
    }
}

impl Counting {
    /// Takes what the device spent since the last time into the clock.
    fn advance(&mut self) {
        let now = self.source.millijoules();
        // Also if nothing trains: the next training must not get what was spent before it.
        let before = std::mem::replace(&mut self.last, now);
        if self.active == 0 {
            return;
        }
        // A count falls if the driver was loaded again. What was spent before is then lost, so the energy is not known.
        match (before, now) {
            (Some(before), Some(now)) if now >= before => {
                self.clock += (now - before) as f64 / f64::from(self.active);
            }
            _ => self.gaps += 1,
        }
    }
}

#[cfg(feature = "hardware")]
fn counter(device: DeviceSpec) -> Option<Arc<EnergyMeter>> {
    let source = super::nvml::NvmlEnergy::of(device)?;
    Some(EnergyMeter::new(source))
}

#[cfg(not(feature = "hardware"))]
fn counter(_device: DeviceSpec) -> Option<Arc<EnergyMeter>> {
    None
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// Says what a test puts into it, one after the other.
    struct Script(VecDeque<Option<u64>>);

    impl EnergySource for Script {
        fn millijoules(&mut self) -> Option<u64> {
            self.0
                .pop_front()
                .expect("a reading for each begin and end")
        }
    }

    fn meter(readings: impl IntoIterator<Item = Option<u64>>) -> Arc<EnergyMeter> {
        EnergyMeter::new(Script(readings.into_iter().collect()))
    }

    #[test]
    fn trainings_share_what_the_device_spends_while_they_run() {
        let meter = meter([
            Some(1_000_000),
            // 60 J for the first alone, 40 J for both, 10 J for the second alone.
            Some(1_060_000),
            Some(1_100_000),
            Some(1_110_000),
            // 500 J for nobody, then 1 J.
            Some(1_610_000),
            Some(1_611_000),
        ]);
        let first = meter.begin();
        let second = meter.begin();
        assert_eq!(first.end(), Some(80.0));
        assert_eq!(second.end(), Some(30.0));
        let third = meter.begin();
        assert_eq!(third.end(), Some(1.0));
    }

    #[test]
    fn a_training_that_fails_has_its_share_and_leaves_the_others_theirs() {
        // 20 J for both, and 30 J for the one that goes on.
        let meter = meter([Some(0), Some(0), Some(20_000), Some(50_000)]);
        let goes_on = meter.begin();
        let fails = meter.begin();
        drop(fails);
        assert_eq!(goes_on.end(), Some(40.0));
        assert_eq!(meter.counting().active, 0);
    }

    #[test]
    fn a_source_that_fails_midway_leaves_those_that_ran_without_energy() {
        let meter = meter([
            Some(0),
            // The second begins, and nothing can be read.
            None,
            // The first ends; the second goes on.
            Some(10_000),
            Some(20_000),
            // Afterwards all is well again.
            Some(30_000),
            Some(35_000),
        ]);
        let first = meter.begin();
        let second = meter.begin();
        assert_eq!(first.end(), None);
        assert_eq!(second.end(), None);
        let third = meter.begin();
        assert_eq!(third.end(), Some(5.0));
    }

    #[test]
    fn a_counter_that_begins_anew_is_not_energy() {
        let meter = meter([Some(5_000_000), Some(1000)]);
        assert_eq!(meter.begin().end(), None);
    }

    #[test]
    fn cpus_have_no_meter() {
        assert!(EnergyMeter::of(DeviceSpec::Cpu).is_none());
        assert!(EnergyMeter::of(DeviceSpec::Flex).is_none());
    }
}
