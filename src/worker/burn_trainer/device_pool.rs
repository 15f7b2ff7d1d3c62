//! Several devices in one process: each trainer that is made takes the one with the fewest live trainers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::tensor::Device;

use crate::{
    backend::{DeviceError, DeviceSpec, EnergyMeter},
    parameters::Parameters,
    round::Evaluation,
    worker::{ClientContext, EvalTask, LocalTrainer, LocalUpdate, TrainError, TrainTask},
};

/// The devices of a factory, at least one, and how many trainers live on each.
pub(super) struct DevicePool {
    devices: Vec<PooledDevice>,
    live: Arc<LiveTrainers>,
}

struct PooledDevice {
    name: String,
    device: Device,
    meter: Option<Arc<EnergyMeter>>,
}

impl PooledDevice {
    fn open(spec: DeviceSpec) -> Result<Self, DeviceError> {
        Ok(Self {
            name: spec.to_string(),
            device: spec.device()?,
            meter: EnergyMeter::of(spec),
        })
    }
}

impl DevicePool {
    /// A pool of these devices, each found to work.
    pub fn on(devices: impl IntoIterator<Item = DeviceSpec>) -> Result<Self, DeviceError> {
        let mut specs = Vec::new();
        for device in devices {
            // `cpu` and `flex` can be the same.
            let device = device.resolve()?;
            if specs.contains(&device) {
                return Err(DeviceError::Duplicate { device });
            }
            specs.push(device);
        }
        if specs.is_empty() {
            return Err(DeviceError::NoDevice);
        }
        // Only now, since opening a device takes seconds: all names have been found right.
        let mut devices = Vec::new();
        for spec in specs {
            devices.push(PooledDevice::open(spec)?);
        }
        Ok(Self {
            live: Arc::new(LiveTrainers::on(devices.len())),
            devices,
        })
    }

    /// The device that initial models are drawn on.
    pub fn first(&self) -> &Device {
        &self.devices[0].device
    }

    /// Makes a trainer on the device with the fewest.
    pub fn trainer(
        &self,
        make: impl FnOnce(Device) -> Result<Box<dyn LocalTrainer>, TrainError>,
    ) -> Result<Box<dyn LocalTrainer>, TrainError> {
        // Before the trainer is made: making it takes seconds, and another thread must not choose the same device meanwhile.
        let place = self.live.take_place();
        let pooled = &self.devices[place.index];
        Ok(Box::new(PooledTrainer {
            trainer: make(pooled.device.clone())?,
            device: pooled.name.clone(),
            meter: pooled.meter.clone(),
            _place: place,
        }))
    }
}

/// A trainer with its place on a device.
struct PooledTrainer {
    trainer: Box<dyn LocalTrainer>,
    device: String,
    meter: Option<Arc<EnergyMeter>>,
    /// After the trainer, so that the place is given back when the trainer's memory on the device is.
    _place: Place,
}

impl LocalTrainer for PooledTrainer {
    fn train(
        &mut self,
        global: &Parameters,
        task: &TrainTask,
        context: &mut ClientContext<'_>,
    ) -> Result<LocalUpdate, TrainError> {
        self.trainer.train(global, task, context)
    }

    fn evaluate(
        &mut self,
        global: &Parameters,
        task: &EvalTask,
        context: &mut ClientContext<'_>,
    ) -> Result<Evaluation, TrainError> {
        self.trainer.evaluate(global, task, context)
    }

    fn device(&self) -> Option<String> {
        Some(self.device.clone())
    }

    fn meter(&self) -> Option<Arc<EnergyMeter>> {
        self.meter.clone()
    }
}

/// How many trainers live on each of several devices.
struct LiveTrainers(Mutex<Vec<usize>>);

/// A trainer's place on the device of this index, given back when it is dropped.
struct Place {
    live: Arc<LiveTrainers>,
    index: usize,
}

impl LiveTrainers {
    fn on(devices: usize) -> Self {
        Self(Mutex::new(vec![0; devices]))
    }

    /// Takes a place on the device with the fewest trainers, the first of equals.
    fn take_place(self: &Arc<Self>) -> Place {
        let mut counts = self.counts();
        let index = (0..counts.len())
            .min_by_key(|index| counts[*index])
            .unwrap_or(0);
        counts[index] += 1;
        Place {
            live: self.clone(),
            index,
        }
    }

    fn counts(&self) -> MutexGuard<'_, Vec<usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.live.counts()[self.index] -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_on_the_device_with_the_fewest_and_on_the_first_of_equals() {
        let live = Arc::new(LiveTrainers::on(3));
        let mut taken: Vec<_> = (0..7).map(|_| live.take_place()).collect();
        let indices: Vec<_> = taken.iter().map(|place| place.index).collect();
        assert_eq!(indices, [0, 1, 2, 0, 1, 2, 0]);
        // Both of the last device go: it gets the next two.
        taken.retain(|place| place.index != 2);
        assert_eq!(
            [live.take_place(), live.take_place()].map(|place| place.index),
            [2, 2]
        );
    }

    #[test]
    fn a_place_comes_back_after_a_panic() {
        let live = Arc::new(LiveTrainers::on(2));
        let first = live.take_place();
        let others = live.clone();
        let died = std::thread::spawn(move || {
            let _place = others.take_place();
            panic!("as a trainer might");
        });
        assert!(died.join().is_err());
        assert_eq!((first.index, live.take_place().index), (0, 1));
        assert_eq!(*live.counts(), [1, 0]);
    }

    #[test]
    fn a_trainer_that_cannot_be_made_takes_no_place() {
        let pool = DevicePool::on([DeviceSpec::Cpu]).unwrap();
        let failed = pool.trainer(|_| Err(TrainError::Cancelled));
        assert!(failed.is_err());
        assert_eq!(*pool.live.counts(), [0]);
    }
}
