//! Models and datasets by name: what makes a job's `model` and `dataset` into a trainer.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc};

use burn::tensor::Device;

use super::{
    Learner,
    datasets::Datasets,
    device_pool::DevicePool,
    erased::{AnyFamily, AnyLearner, Shared},
    guarded,
    images::{Family, Initial},
};
use crate::{
    backend::{DeviceError, DeviceSpec},
    data::Dataset,
    job::{JobDescription, JobSpec, TrainingSettings},
    model::{Classifier, ClassifierShape, zoo},
    parameters::Parameters,
    protocol::DatasetInfo,
    worker::{
        EvalTask, LOSS_BEFORE, LocalObjective, LocalTrainer, Objectives, TrainError, TrainerFactory,
    },
};

/// Makes [`BurnTrainer`](crate::worker::BurnTrainer)s: the models and datasets that jobs can name, and the devices.
///
/// The models of the [`zoo`] and the datasets `digits`, `cifar10` and `folder:PATH` are known from the start; datasets
/// are read when they are first needed and stay in memory.
///
/// ```
/// use fedavg::{backend::DeviceSpec, job::JobDescription, worker::{BurnTrainers, TrainerFactory}};
///
/// let trainers = BurnTrainers::new(DeviceSpec::Cpu)?;
/// let initial = trainers.initial(&JobDescription::default())?;
/// assert_eq!(initial.layout().tensors()[0].name, "fc1.bias");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct BurnTrainers {
    devices: DevicePool,
    models: BTreeMap<String, Arc<dyn AnyFamily>>,
    learners: BTreeMap<String, BTreeMap<String, Arc<dyn AnyLearner>>>,
    datasets: Datasets,
    objectives: Objectives,
}

impl fmt::Debug for BurnTrainers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("BurnTrainers")
            .finish_non_exhaustive()
    }
}

impl BurnTrainers {
    /// The zoo and the known datasets, on this device. Datasets are looked for in `FEDAVG_DATA`, else in the user's
    /// cache folder.
    ///
    /// # Errors
    ///
    /// [`DeviceError`] if there is no such device.
    pub fn new(device: DeviceSpec) -> Result<Self, DeviceError> {
        Self::on([device])
    }

    /// The same, on several devices. Each trainer that is made takes the one with the fewest live trainers, the first of
    /// equals: with as many slots as devices, or a multiple of that, each device trains its share and never more.
    /// Initial models are drawn on the first.
    ///
    /// Kinds of devices round differently, and which device trains a client depends on which is free first: with unlike
    /// devices, two runs of one job differ in their last bits.
    ///
    /// # Errors
    ///
    /// [`DeviceError`] if one of them is not there or is named more than once, or if none is named.
    pub fn on(devices: impl IntoIterator<Item = DeviceSpec>) -> Result<Self, DeviceError> {
        let trainers = Self {
            // First: a device that can't compute must not be found out by the first task.
            devices: DevicePool::on(devices)?,
            models: BTreeMap::new(),
            learners: BTreeMap::new(),
            datasets: Datasets::default(),
            objectives: Objectives::default(),
        };
        Ok(trainers
            .with_zoo("cifar_cnn", zoo::CifarCnn::new)
            .with_zoo("lenet", zoo::LeNet::new)
            .with_zoo("mlp", zoo::Mlp::new)
            .with_zoo("tiny_cnn", zoo::TinyCnn::new))
    }

    /// Datasets are looked for in this folder.
    pub fn with_data_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.datasets.folder = Some(folder.into());
        self
    }

    /// Adds an image classifier, for any dataset of images. A model of this name that was known before is
    /// replaced.
    ///
    /// Its initial values are those that the module draws when it is built; see [`Learner::initial`].
    pub fn with_model<C: Classifier>(
        self,
        name: impl Into<String>,
        build: impl Fn(&ClassifierShape, &Device) -> C + Send + Sync + 'static,
    ) -> Self {
        self.with_family(
            name,
            Family {
                build: Box::new(move |shape, device| Ok(build(shape, device))),
                initial: Initial::Module,
            },
        )
    }

    /// Adds a dataset of images, for any classifier.
    pub fn with_dataset(mut self, name: impl Into<String>, dataset: Dataset) -> Self {
        self.datasets.insert(name.into(), dataset);
        self
    }

    /// Adds a module with its own data and loss, for jobs that name both this model and this dataset.
    pub fn with_learner<L: Learner>(
        mut self,
        model: impl Into<String>,
        dataset: impl Into<String>,
        learner: L,
    ) -> Self {
        self.learners
            .entry(dataset.into())
            .or_default()
            .insert(model.into(), Arc::new(Shared(Arc::new(learner))));
        self
    }

    /// Adds an objective, for plans whose objective is `custom` with this name.
    pub fn with_objective(
        mut self,
        name: impl Into<String>,
        objective: impl LocalObjective + 'static,
    ) -> Self {
        self.objectives = self.objectives.with(name, objective);
        self
    }

    fn with_zoo<C: Classifier>(
        self,
        name: &str,
        build: impl Fn(&ClassifierShape, &Device) -> Result<C, zoo::UnfitShape> + Send + Sync + 'static,
    ) -> Self {
        self.with_family(
            name,
            Family {
                build: Box::new(move |shape, device| {
                    build(shape, device).map_err(|error| TrainError::Model(error.to_string()))
                }),
                initial: Initial::PyTorch,
            },
        )
    }

    fn with_family<C: Classifier>(mut self, name: impl Into<String>, family: Family<C>) -> Self {
        // The inner one is what all trainers of the family share, the outer one forgets its type.
        self.models.insert(name.into(), Arc::new(Arc::new(family)));
        self
    }

    fn learner(&self, job: &JobDescription) -> Option<&Arc<dyn AnyLearner>> {
        self.learners.get(&job.dataset)?.get(&job.model)
    }

    fn family(&self, job: &JobDescription) -> Result<&Arc<dyn AnyFamily>, TrainError> {
        self.models.get(&job.model).ok_or_else(|| {
            let of_learners = self.learners.iter().flat_map(|(dataset, models)| {
                models
                    .keys()
                    .map(move |model| format!("{model} on {dataset}"))
            });
            let known: Vec<_> = self.models.keys().cloned().chain(of_learners).collect();
            TrainError::UnknownModel {
                name: job.model.clone(),
                known: known.join(", "),
            }
        })
    }

    /// Any learner of this dataset: all have the same examples.
    fn examples(&self, dataset: &str) -> Option<&Arc<dyn AnyLearner>> {
        self.learners.get(dataset)?.values().next()
    }
}

impl TrainerFactory for BurnTrainers {
    fn trainer(&self, job: &JobDescription) -> Result<Box<dyn LocalTrainer>, TrainError> {
        match self.learner(job) {
            Some(learner) => self
                .devices
                .trainer(|device| learner.trainer(device, &self.objectives)),
            None => {
                let family = self.family(job)?;
                let dataset = self.datasets.open(&job.dataset)?;
                let normalize = job.training.normalize;
                self.devices
                    .trainer(|device| family.trainer(dataset, normalize, device, &self.objectives))
            }
        }
    }

    fn initial(&self, job: &JobDescription) -> Result<Parameters, TrainError> {
        guarded(|| match self.learner(job) {
            Some(learner) => learner.initial(self.devices.first(), job.seed),
            None => {
                let family = self.family(job)?;
                let shape = self.datasets.shape(&job.dataset)?;
                family.initial(&shape, self.devices.first(), job.seed)
            }
        })
    }

    fn dataset(&self, name: &str) -> Result<DatasetInfo, TrainError> {
        match self.examples(name) {
            Some(learner) => Ok(learner.info(name)),
            None => Ok(info(name, &*self.datasets.open(name)?)),
        }
    }

    fn labels(&self, dataset: &str) -> Result<Arc<[u16]>, TrainError> {
        match self.examples(dataset) {
            Some(learner) => learner.labels().ok_or_else(|| TrainError::UnknownDataset {
                name: dataset.to_string(),
                reason: "its examples have no labels to deal by".into(),
            }),
            None => Ok(self.datasets.open(dataset)?.train.labels().into()),
        }
    }

    fn datasets(&self) -> Vec<DatasetInfo> {
        let own = self
            .learners
            .keys()
            .filter_map(|name| Some(self.examples(name)?.info(name)));
        let images = self
            .datasets
            .here()
            .into_iter()
            // A learner's examples come before images of the same name, as they do in `dataset`.
            .filter(|(name, _)| !self.learners.contains_key(name))
            .map(|(name, dataset)| info(&name, &dataset));
        own.chain(images).collect()
    }

    fn capabilities(&self) -> Vec<String> {
        let training = TrainingSettings::CAPABILITIES.map(str::to_string);
        let loss_before = format!("payload:{LOSS_BEFORE}");
        training
            .into_iter()
            .chain(self.objectives.capabilities())
            .chain(JobSpec::TENSOR_CAPABILITIES.map(str::to_string))
            .chain([loss_before, EvalTask::VALIDATION.to_string()])
            .collect()
    }
}

fn info(name: &str, dataset: &Dataset) -> DatasetInfo {
    DatasetInfo {
        name: name.to_string(),
        fingerprint: dataset.fingerprint(),
        train_examples: dataset.train.len() as u64,
        test_examples: dataset.test.len() as u64,
    }
}
