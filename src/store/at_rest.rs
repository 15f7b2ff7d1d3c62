//! What is in a data folder, file by file: for a look at it and for copies. Changes nothing.

use std::{path::PathBuf, sync::Arc};

use super::{
    DataFolder, StoreError,
    folder::{job_folder, job_folders, names_in},
    spool::at_rest as reports,
};
pub(crate) use super::{
    folder::had_journal, models::check_file as check_model, spool::at_rest::SpoolFile,
};
use crate::{
    ids::{JobId, ModelVersion},
    report::SpoolKey,
};

/// The folder of a version of a job's model.
pub(crate) fn version_path(folder: &DataFolder, job: JobId, version: ModelVersion) -> PathBuf {
    job_folder(&folder.models(), job).join(format!("v{version}"))
}

/// The folders of all versions; of those that are no version's yet, or not any more, without a number.
///
/// # Errors
///
/// [`StoreError::Io`].
pub(crate) fn version_folders(
    folder: &DataFolder,
) -> Result<Vec<(JobId, Option<ModelVersion>, PathBuf)>, StoreError> {
    let mut folders = Vec::new();
    if !folder.models().exists() {
        return Ok(folders);
    }
    for (job, path) in job_folders(&folder.models())? {
        for name in names_in(&path)? {
            // Other names are not this crate's.
            if let Some(version) = name.strip_prefix('v') {
                let version = version.parse().ok().map(ModelVersion);
                folders.push((job, version, path.join(name)));
            }
        }
    }
    Ok(folders)
}

/// The file of a report.
pub(crate) fn report_path(folder: &Arc<DataFolder>, key: SpoolKey) -> PathBuf {
    reports::report_path(folder, key)
}

/// All files of reports and of broken uploads.
///
/// # Errors
///
/// [`StoreError::Io`].
pub(crate) fn spool_files(folder: &DataFolder) -> Result<Vec<SpoolFile>, StoreError> {
    reports::spool_files(folder)
}

/// Reads a report's file. An error is what is wrong with it.
pub(crate) fn check_report(folder: &Arc<DataFolder>, key: SpoolKey) -> Result<u64, String> {
    reports::check_report(folder, key)
}
