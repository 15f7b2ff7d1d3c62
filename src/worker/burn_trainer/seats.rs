//! Several devices in one process: each trainer that is made takes the one with the fewest live trainers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::tensor::Device;

use crate::{
    backend::{DeviceError, DeviceSpec, EnergyMeter},
    parameters::Parameters,
    round::Evaluation,
    worker::{ClientContext, EvalTask, LocalTrainer, LocalUpdate, TrainError, TrainTask},
};

/// The devices of a factory, at least one, and who is on them.
pub(super) struct Seats {
    devices: Vec<Seat>,
    places: Arc<Places>,
}

struct Seat {
    name: String,
    device: Device,
    meter: Option<Arc<EnergyMeter>>,
}

impl Seats {
    /// These devices, each found to work.
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
        let seat = |spec: DeviceSpec| {
            Ok(Seat {
                name: spec.to_string(),
                device: spec.device()?,
                meter: EnergyMeter::of(spec),
            })
        };
        let devices: Vec<_> = specs.into_iter().map(seat).collect::<Result<_, _>>()?;
        Ok(Self {
            places: Arc::new(Places::new(devices.len())),
            devices,
        })
    }

    pub fn first(&self) -> &Device {
        &self.devices[0].device
    }

    /// Makes a trainer on the device with the fewest.
    pub fn seated(
        &self,
        make: impl FnOnce(Device) -> Result<Box<dyn LocalTrainer>, TrainError>,
    ) -> Result<Box<dyn LocalTrainer>, TrainError> {
        let place = self.places.take();
        let seat = &self.devices[place.index];
        Ok(Box::new(Seated {
            trainer: make(seat.device.clone())?,
            name: seat.name.clone(),
            meter: seat.meter.clone(),
            _place: place,
        }))
    }
}

/// A trainer with its place on a device.
struct Seated {
    trainer: Box<dyn LocalTrainer>,
    name: String,
    meter: Option<Arc<EnergyMeter>>,
    /// After the trainer, so that it is given back when the trainer is gone.
    _place: Place,
}

impl LocalTrainer for Seated {
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
        Some(self.name.clone())
    }

    fn meter(&self) -> Option<Arc<EnergyMeter>> {
        self.meter.clone()
    }
}

/// How many live on each of several devices.
struct Places(Mutex<Vec<usize>>);

/// A place on the device of this index, given back when it is dropped.
struct Place {
    places: Arc<Places>,
    index: usize,
}

impl Places {
    fn new(devices: usize) -> Self {
        Self(Mutex::new(vec![0; devices]))
    }

    /// A place where the fewest are, on the first of equals.
    fn take(self: &Arc<Self>) -> Place {
        let mut live = self.live();
        let index = (0..live.len())
            .min_by_key(|index| live[*index])
            .unwrap_or(0);
        live[index] += 1;
        Place {
            places: self.clone(),
            index,
        }
    }

    fn live(&self) -> MutexGuard<'_, Vec<usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.live()[self.index] -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_where_the_fewest_are_and_on_the_first_of_equals() {
        let places = Arc::new(Places::new(3));
        let mut taken: Vec<_> = (0..7).map(|_| places.take()).collect();
        let indices: Vec<_> = taken.iter().map(|place| place.index).collect();
        assert_eq!(indices, [0, 1, 2, 0, 1, 2, 0]);
        // Both of the last device go: it gets the next two.
        taken.retain(|place| place.index != 2);
        assert_eq!(
            [places.take(), places.take()].map(|place| place.index),
            [2, 2]
        );
    }

    #[test]
    fn a_place_comes_back_after_a_panic() {
        let places = Arc::new(Places::new(2));
        let first = places.take();
        let others = places.clone();
        let died = std::thread::spawn(move || {
            let _place = others.take();
            panic!("as a trainer might");
        });
        assert!(died.join().is_err());
        assert_eq!((first.index, places.take().index), (0, 1));
        assert_eq!(*places.live(), [1, 0]);
    }

    #[test]
    fn a_trainer_that_cannot_be_made_takes_no_place() {
        let seats = Seats::on([DeviceSpec::Cpu]).unwrap();
        let failed = seats.seated(|_| Err(TrainError::Cancelled));
        assert!(failed.is_err());
        assert_eq!(*seats.places.live(), [0]);
    }
}
