//! Unpacks the seven files that are CIFAR-10 out of a `tar.gz`, and nothing else.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::Path;

use flate2::read::GzDecoder;
use tar::Archive;

use super::{
    error::{DownloadError, file_error},
    origin::Origin,
};
use crate::{
    data::cifar10::{BATCH_BYTES, FOLDER, TEST_BATCH, TRAIN_BATCHES},
    disk::{self, Site},
};

/// The names of the classes; part of the archive, though nothing here reads it.
const CLASS_NAMES: &str = "batches.meta.txt";
/// More than the archive unpacks to, 184 MB. A bomb stops here.
const MOST_BYTES: u64 = 1 << 30;

/// Unpacks the plain files `cifar-10-batches-bin/<expected name>` into the new folder `to`.
///
/// A path in the archive only chooses among the expected names. Links, folders and any other entry are passed over.
pub(super) fn unpack(archive: &Path, origin: &Origin, to: &Path) -> Result<(), DownloadError> {
    fs::create_dir(to).map_err(file_error("create", to))?;

    let file = File::open(archive).map_err(file_error("read", archive))?;
    // The operator can name another archive, with its checksum. So the limit is on what comes out of gzip.
    let unzipped = GzDecoder::new(BufReader::new(file)).take(MOST_BYTES);
    let mut archive = Archive::new(unzipped);
    let entries = archive
        .entries()
        .map_err(|error| damaged(origin, error.to_string()))?;
    for entry in entries {
        let entry = entry.map_err(|error| damaged(origin, error.to_string()))?;
        let path = entry
            .path()
            .map_err(|error| damaged(origin, error.to_string()))?;
        let Some(name) = expected_name(&path) else {
            continue;
        };
        // A link would let the archive choose what is written or read.
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let target = to.join(name);
        // `create_new` also refuses a name that the archive has more than once.
        let mut out = File::create_new(&target).map_err(file_error("write", &target))?;
        // One byte more than a batch has shows the reader of the batch that it is too long.
        let mut entry = entry.take(BATCH_BYTES + 1);
        io::copy(&mut entry, &mut out).map_err(|error| damaged(origin, error.to_string()))?;
        disk::sync_file(Site::DatasetSync, &out, &target).map_err(file_error("write", &target))?;
    }
    for name in TRAIN_BATCHES.into_iter().chain([TEST_BATCH]) {
        if !to.join(name).is_file() {
            return Err(damaged(origin, format!("it has no {FOLDER}/{name}")));
        }
    }
    Ok(())
}

fn damaged(origin: &Origin, reason: String) -> DownloadError {
    DownloadError::Archive {
        origin: origin.to_string(),
        reason,
    }
}

fn expected_name(path: &Path) -> Option<&'static str> {
    TRAIN_BATCHES
        .into_iter()
        .chain([TEST_BATCH, CLASS_NAMES])
        .find(|name| {
            let expected = Path::new(FOLDER).join(name);
            path.strip_prefix(".").unwrap_or(path) == expected
        })
}
