//! What trains: burn on a device, or nothing at all.

use std::{path::PathBuf, sync::Arc};

use clap::Args;

use super::Failure;
use crate::{
    backend::DeviceSpec,
    data::{DATA_DIR_VARIABLE, DataError, Dataset, data_dir, open},
    worker::{BurnTrainers, NoopTrainers, TrainerFactory},
};

/// Examples of the dataset of a rehearsal: enough for as many clients as there may be workers.
const REHEARSED_EXAMPLES: usize = 100_000;

/// The most parameters of a rehearsal: 16 GB of values.
const MOST_REHEARSED: usize = 4_000_000_000;

fn rehearsed(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(parameters) if (1..=MOST_REHEARSED).contains(&parameters) => Ok(parameters),
        _ => Err(format!("not a number from 1 to {MOST_REHEARSED}")),
    }
}

/// The folder of datasets, and whether there is training at all.
#[derive(Debug, Clone, Default, Args)]
pub struct TrainerArgs {
    /// The folder that holds the datasets [default: $FEDAVG_DATA, else `fedavg` in your cache folder]
    #[arg(long, value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// Train nothing, to measure the network and the coordinator: the only model is `noop`, with this many parameters, on
    /// the dataset `noop`. Give the coordinator and all workers the same number
    #[arg(long, value_name = "PARAMETERS", value_parser = rehearsed)]
    pub rehearse: Option<usize>,
}

impl TrainerArgs {
    /// The models and datasets, on these devices.
    ///
    /// # Errors
    ///
    /// A device that is not there or can't compute, or no folder for datasets.
    pub fn trainers(&self, devices: &[DeviceSpec]) -> Result<Arc<dyn TrainerFactory>, Failure> {
        if let Some(parameters) = self.rehearse {
            let trainers = NoopTrainers::new(parameters, REHEARSED_EXAMPLES)
                .map_err(|error| Failure::Usage(format!("--rehearse: {error}")))?;
            return Ok(Arc::new(trainers));
        }
        Ok(Arc::new(self.burn_trainers(devices)?))
    }

    /// The same, with this dataset in the place of the one of its name.
    ///
    /// # Errors
    ///
    /// As [`TrainerArgs::trainers`].
    pub(super) fn trainers_of(
        &self,
        devices: &[DeviceSpec],
        name: &str,
        dataset: Dataset,
    ) -> Result<Arc<dyn TrainerFactory>, Failure> {
        let trainers = self.burn_trainers(devices)?;
        Ok(Arc::new(trainers.with_dataset(name, dataset)))
    }

    /// A dataset of images, in memory.
    ///
    /// # Errors
    ///
    /// If it is not here, and in a rehearsal, which has no images.
    pub(super) fn dataset(&self, name: &str) -> Result<Dataset, Failure> {
        if self.rehearse.is_some() {
            return Err(Failure::Usage(
                "--rehearse has no images, and this attack needs some to poison".to_string(),
            ));
        }
        open(name, &self.data_folder()?).map_err(|error| Failure::unusable("--dataset", &error))
    }

    fn burn_trainers(&self, devices: &[DeviceSpec]) -> Result<BurnTrainers, Failure> {
        let trainers = BurnTrainers::on(devices.iter().copied())
            .map_err(|error| Failure::unusable("--device", &error))?;
        Ok(trainers.with_data_dir(self.data_folder()?))
    }

    /// The folder of datasets.
    ///
    /// # Errors
    ///
    /// If there is none, not even by default.
    pub fn data_folder(&self) -> Result<PathBuf, Failure> {
        folder(self.data_dir.clone()).map_err(|error| Failure::Usage(error.to_string()))
    }
}

/// The folder of datasets, if `argument` is what the user gave.
pub(super) fn folder(argument: Option<PathBuf>) -> Result<PathBuf, DataError> {
    data_dir(argument.as_deref(), std::env::var_os(DATA_DIR_VARIABLE))
}
