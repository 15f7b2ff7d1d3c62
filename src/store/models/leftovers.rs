//! What an earlier process left in the folder of models: versions that nobody needs, and folders that were on their way.

use std::path::Path;

use crate::{
    disk::{self, Site},
    ids::{JobId, ModelVersion},
    store::{
        DataFolder, StoreError,
        folder::{failed, job_folders, names_in},
    },
};

/// Removes all but the versions that `keeps` names, and puts back what a crash left between two renames.
///
/// # Errors
///
/// [`StoreError::Io`].
pub(super) fn remove(
    folder: &DataFolder,
    keeps: &dyn Fn(JobId, ModelVersion) -> bool,
) -> Result<(), StoreError> {
    for (job, path) in job_folders(&folder.models())? {
        for name in names_in(&path)? {
            put_back(&path, &name)?;
        }
        for name in names_in(&path)? {
            let version = name.strip_prefix('v').and_then(|name| name.parse().ok());
            match version.map(ModelVersion) {
                Some(version) if keeps(job, version) => {}
                // Only names that this crate makes: the operator may have put something else there.
                _ if !name.starts_with('v') => {}
                _ => {
                    let path = path.join(&name);
                    disk::remove_tree(Site::OldVersionRemove, &path)
                        .map_err(|error| failed(&path, error))?;
                }
            }
        }
        // It stays if something is in it.
        let _ = disk::remove_folder(Site::OldModelJobRemove, &path);
    }
    Ok(())
}

/// `vN.K.old` is version N if the crash came before the new one was in its place.
fn put_back(folder: &Path, name: &str) -> Result<(), StoreError> {
    let Some((version, _)) = name
        .strip_suffix(".old")
        .and_then(|name| name.split_once('.'))
    else {
        return Ok(());
    };
    let place = folder.join(version);
    if place.exists() {
        return Ok(());
    }
    // Without a sync: if a power failure takes it back, the next start does it again.
    let renamed = disk::rename(Site::OldVersionRename, &folder.join(name), &place);
    renamed.map_err(|error| failed(&place, error))
}
