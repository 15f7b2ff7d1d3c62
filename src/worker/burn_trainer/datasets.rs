//! Datasets of images by name, each read once.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{TrainError, images::shape_of};
use crate::{
    Cause,
    data::{self, DATA_DIR_VARIABLE, Dataset},
    model::ClassifierShape,
};

/// The datasets that were read or handed in so far, and the folder of the others.
#[derive(Default)]
pub(super) struct Datasets {
    pub(super) folder: Option<PathBuf>,
    /// Locked while a dataset is read: two threads that need it read it once.
    read: Mutex<BTreeMap<String, Arc<Dataset>>>,
}

impl Datasets {
    pub(super) fn insert(&mut self, name: String, dataset: Dataset) {
        self.lock().insert(name, Arc::new(dataset));
    }

    /// The dataset of this name. A failure is not remembered: the data may come later.
    pub(super) fn open(&self, name: &str) -> Result<Arc<Dataset>, TrainError> {
        let mut read = self.lock();
        if let Some(dataset) = read.get(name) {
            return Ok(dataset.clone());
        }
        let opened = data::data_dir(self.folder.as_deref(), std::env::var_os(DATA_DIR_VARIABLE))
            .and_then(|folder| data::open(name, &folder));
        let dataset = Arc::new(opened.map_err(|error| TrainError::UnknownDataset {
            name: name.to_string(),
            reason: Cause::of(error),
        })?);
        read.insert(name.to_string(), dataset.clone());
        Ok(dataset)
    }

    /// Every dataset that is here: the known ones that can be read, and those that were handed in or named before.
    pub(super) fn here(&self) -> Vec<(String, Arc<Dataset>)> {
        for known in data::KNOWN {
            // What is not here is not listed. A request for it by name gets the reason.
            let _ = self.open(known);
        }
        self.lock()
            .iter()
            .map(|(name, dataset)| (name.clone(), dataset.clone()))
            .collect()
    }

    /// The shape of a dataset's images; of the known ones without the data being here.
    pub(super) fn shape(&self, name: &str) -> Result<ClassifierShape, TrainError> {
        if let Some(dataset) = self.lock().get(name) {
            return Ok(shape_of(dataset));
        }
        match name {
            // So that a coordinator without the data can draw the initial model.
            "digits" => Ok(ten_classes(1, 8)),
            "cifar10" => Ok(ten_classes(3, 32)),
            _ => Ok(shape_of(&*self.open(name)?)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Dataset>>> {
        // Whole datasets are inserted, so that a panic leaves nothing half done.
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The shape of square images in ten classes.
fn ten_classes(channels: usize, side: usize) -> ClassifierShape {
    ClassifierShape {
        channels,
        height: side,
        width: side,
        classes: 10,
    }
}
