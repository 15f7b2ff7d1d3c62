//! Why a download failed.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::data::DataError;

/// Why there is no dataset after a download.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DownloadError {
    /// No SHA-256.
    #[error("{text:?} is not a SHA-256: give 64 hexadecimal digits")]
    NoChecksum {
        /// What was given.
        text: String,
    },
    /// The archive could not be fetched.
    #[error(
        "cannot download {url}: {reason}. Get the file in another way and give it with --from FILE"
    )]
    Fetch {
        /// The address.
        url: String,
        /// What happened.
        reason: String,
    },
    /// The bytes are not the ones expected.
    #[error(
        "the checksum of {origin} is {found}, not {expected}: it is another file, or was damaged on the way. Nothing was \
         installed; get it again, or give the file's own checksum with --sha256"
    )]
    Checksum {
        /// File or address.
        origin: String,
        /// The SHA-256 it should have.
        expected: String,
        /// The SHA-256 it has.
        found: String,
    },
    /// The bytes are right, but no CIFAR-10 archive.
    #[error("{origin} is not a CIFAR-10 archive in binary form: {reason}")]
    Archive {
        /// File or address.
        origin: String,
        /// What is missing or wrong.
        reason: String,
    },
    /// The files in the archive, or those that are already in place, are not whole batches.
    #[error("{} is not a whole CIFAR-10; remove it and download again", .folder.display())]
    Batches {
        /// The folder.
        folder: PathBuf,
        /// Which file, and what is wrong.
        source: DataError,
    },
    /// A file or folder could not be read or written.
    #[error("cannot {action} {}", .path.display())]
    File {
        /// `read`, `write`, and so on.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// Another process is downloading.
    #[error("another download into {} is running: wait for it, or choose another --data-dir", .folder.display())]
    Busy {
        /// The folder of datasets.
        folder: PathBuf,
    },
}

pub(super) fn file_error(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> DownloadError {
    move |source| DownloadError::File {
        action,
        path: path.to_owned(),
        source,
    }
}
