//! Getting CIFAR-10 (feature `cli`): download, check, unpack, and only then put in place.
//!
//! Everything happens in a folder of its own inside the folder of datasets, and `cifar-10-batches-bin` appears in one
//! rename at the end. So a download that is interrupted at any moment never looks like a whole one; the
//! next download removes what was left. Nothing from an archive decides to which path a file is written.

mod archive;
mod error;
mod fetch;
mod origin;
mod progress;

use std::{
    fs::{self, File, TryLockError},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

pub use error::DownloadError;
use error::file_error;
pub use origin::{CIFAR10_SHA256, CIFAR10_URL, Checksum, Download, Origin};
pub use progress::Progress;

use super::{
    cifar10::{FOLDER, verify},
    image_set::hex,
};
use crate::disk::{self, Site};

/// The folder that a download is put together in, inside the folder of datasets.
const WORK_FOLDER: &str = ".cifar-10-download";

/// Gets CIFAR-10 into `data_dir` and returns the folder that holds the batches.
///
/// If it is there already, whole, nothing is fetched. `progress` is called after every piece of the archive.
pub fn cifar10(
    download: &Download,
    data_dir: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<PathBuf, DownloadError> {
    let target = data_dir.join(FOLDER);
    // Checked again at each call: what is there may have been put there by hand, or be half a copy.
    if target.exists() {
        check(&target)?;
        return Ok(target);
    }
    let work = WorkFolder::create(data_dir)?;
    let archive = work.path.join("archive.tar.gz");
    // Before anything is unpacked: bytes with another checksum never reach gzip or tar.
    let found = hex(&fetch::fetch(&download.origin, &archive, progress)?);
    if found != download.checksum.0 {
        return Err(DownloadError::Checksum {
            origin: download.origin.to_string(),
            expected: download.checksum.0.clone(),
            found,
        });
    }
    let unpacked = work.path.join("unpacked");
    archive::unpack(&archive, &download.origin, &unpacked)?;
    check(&unpacked)?;
    put_in_place(&unpacked, &target)?;
    Ok(target)
}

/// Gives a whole dataset its name. Both paths are in one folder, and so on one file system: the rename is one step.
fn put_in_place(unpacked: &Path, target: &Path) -> Result<(), DownloadError> {
    // Before the rename: after a power failure, what has the name must have all of its files.
    disk::sync_folder(Site::DatasetFolderSync, unpacked)
        .and_then(|()| disk::rename(Site::DatasetRename, unpacked, target))
        .map_err(file_error("write", target))
}

fn check(folder: &Path) -> Result<(), DownloadError> {
    verify(folder).map_err(|source| DownloadError::Batches {
        folder: folder.to_owned(),
        source,
    })
}

/// The folder in which one download at a time is put together; gone when dropped.
struct WorkFolder {
    path: PathBuf,
    /// Held open for its lock, which the operating system takes back from a process that dies.
    _lock: File,
}

impl WorkFolder {
    fn create(data_dir: &Path) -> Result<Self, DownloadError> {
        let busy = || DownloadError::Busy {
            folder: data_dir.to_owned(),
        };
        let path = data_dir.join(WORK_FOLDER);
        fs::create_dir_all(&path).map_err(file_error("create", &path))?;
        let lock_path = path.join("lock");
        let lock = File::create(&lock_path).map_err(file_error("create", &lock_path))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => busy(),
            TryLockError::Error(source) => file_error("lock", &lock_path)(source),
        })?;
        // A download that was just ending may have removed the file between the two calls: its lock would keep nobody out.
        if !is_at(&lock, &lock_path) {
            return Err(busy());
        }
        // What a download that was killed left behind.
        let _ = disk::remove_file(Site::DatasetRemove, &path.join("archive.tar.gz"));
        let _ = disk::remove_tree(Site::DatasetRemove, &path.join("unpacked"));
        Ok(Self { path, _lock: lock })
    }
}

/// Whether this open file is the one at this path.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(found)) => (open.dev(), open.ino()) == (found.dev(), found.ino()),
        _ => false,
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        let _ = disk::remove_tree(Site::DatasetRemove, &self.path);
    }
}

#[cfg(test)]
mod tests;
