//! One client's round of local training on random images: what `training` and `device_check` measure.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use fedavg::{
    backend::DeviceSpec,
    data::{Augmentation, Dataset, ImageSet, ImageShape, Normalization},
    ids::{ClientId, RoundId},
    job::{Augment, JobSpec},
    parameters::Parameters,
    rng::{Purpose, keyed},
    worker::{
        BurnTrainers, ClientContext, LocalTrainer, Partition, TrainError, TrainTask, TrainerFactory,
    },
};
use rand_core::Rng;

/// Number of different images.
pub const EXAMPLES: usize = 4096;
/// Images of a step.
pub const BATCH: usize = 64;
const DATASET: &str = "noise";

/// Random images of CIFAR-10's shape, with its augmentation.
pub fn noise() -> Dataset {
    let train = image_set("noise/train", EXAMPLES, 1);
    Dataset {
        test: image_set("noise/test", 10, 2),
        normalization: Normalization::measure(&train, 255.0),
        train,
        augmentation: Augmentation::CIFAR10,
    }
}

fn image_set(name: &str, count: usize, seed: u64) -> ImageSet {
    let shape = ImageShape {
        channels: 3,
        height: 32,
        width: 32,
    };
    let mut rng = keyed(seed, Purpose::Initialize, RoundId(0), None);
    let mut pixels = vec![0; count * shape.pixels()];
    rng.fill_bytes(&mut pixels);
    let labels = (0..count).map(|_| (rng.next_u32() % 10) as u16).collect();
    let classes = (0..10).map(|class| class.to_string()).collect();
    ImageSet::new(name, shape, classes, pixels, labels).expect("a set")
}

/// A client that trains one model on one device, each time from the same global model.
pub struct NoiseClient {
    trainer: Box<dyn LocalTrainer>,
    global: Parameters,
}

impl NoiseClient {
    /// A client with these images; see [`noise`].
    ///
    /// # Errors
    ///
    /// The device can't be used, or there is no such model.
    pub fn new(device: DeviceSpec, model: &str, noise: Dataset) -> Result<Self, TrainError> {
        let factory = BurnTrainers::new(device)
            .map_err(|error| TrainError::Model(error.to_string()))?
            .with_dataset(DATASET, noise);
        let job = JobSpec::new(model, DATASET);
        Ok(Self {
            trainer: factory.trainer(&job.description())?,
            global: factory.initial(&job.description())?,
        })
    }

    /// How long training on this many images takes, until the local model is read back.
    ///
    /// # Errors
    ///
    /// What the trainer says.
    pub fn train(&mut self, images: usize) -> Result<Duration, TrainError> {
        let indices: Arc<[u32]> = (0..images).map(|at| (at % EXAMPLES) as u32).collect();
        let partition = Partition::Indices(indices);
        let mut task = TrainTask::new(RoundId(1), ClientId(0), partition);
        task.seed = 1;
        task.training.batch_size = BATCH as u32;
        task.training.augment = Augment::Zeros;
        let (mut state, cancelled) = (BTreeMap::new(), AtomicBool::new(false));
        let mut context = ClientContext {
            client: task.client,
            state: &mut state,
            cancelled: &cancelled,
            progress: &mut |_, _| {},
        };
        let start = Instant::now();
        let update = self.trainer.train(&self.global, &task, &mut context)?;
        let time = start.elapsed();
        assert_eq!(update.examples, images as u64);
        Ok(time)
    }
}
