//! Getting CIFAR-10 (feature `cli`): download, check, unpack, and only then put in place.
//!
//! Everything happens in a folder of its own inside the folder of datasets, and `cifar-10-batches-bin` appears in one
//! rename at the end. So whatever is interrupted, and however, a half download is never taken for a whole one; the
//! next download removes what was left. Nothing from an archive decides where a file is written.

mod archive;
mod fetch;

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::cifar10::{FOLDER, verify};
use super::{DataError, image_set::hex};

/// Where CIFAR-10's author publishes its binary form, 170 052 171 bytes.
pub const CIFAR10_URL: &str = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz";
/// The SHA-256 of that archive, whose published MD5 is `c32a1d4ab5d03f1284b67883e8d87530`.
pub const CIFAR10_SHA256: &str = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd";

/// Where a download is put together, inside the folder of datasets.
const WORK_FOLDER: &str = ".cifar-10-download";

/// An archive to get: a file or an `http(s)` address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// An address that starts with `http://` or `https://`.
    Url(String),
    /// A file on this machine.
    File(PathBuf),
}

impl FromStr for Origin {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(
            if text.starts_with("http://") || text.starts_with("https://") {
                Self::Url(text.to_owned())
            } else {
                Self::File(PathBuf::from(text))
            },
        )
    }
}

/// A SHA-256 checksum, 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksum(String);

impl FromStr for Checksum {
    type Err = DownloadError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(DownloadError::NoChecksum {
                text: text.to_owned(),
            })
        }
    }
}

/// What to get and how to know that it is the right thing. The default is the published archive.
#[derive(Debug, Clone)]
pub struct Download {
    /// Where the archive is.
    pub origin: Origin,
    /// What its bytes must hash to.
    pub checksum: Checksum,
}

impl Default for Download {
    fn default() -> Self {
        Self {
            origin: Origin::Url(CIFAR10_URL.to_owned()),
            checksum: Checksum(CIFAR10_SHA256.to_owned()),
        }
    }
}

/// How far a download is, told as bytes arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes received.
    pub received: u64,
    /// Bytes in all, if the other side says so.
    pub total: Option<u64>,
}

/// Why there is no dataset after a download.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DownloadError {
    /// No SHA-256.
    #[error("{text:?} is not a SHA-256: 64 hexadecimal digits")]
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
        "checksum of {origin} is {found}, not {expected}: it is another file, or damaged on the way"
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
    #[error("{origin} is no CIFAR-10 archive: {reason}")]
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
    /// Another process is at it.
    #[error("another download into {} is running", .folder.display())]
    Busy {
        /// The folder of datasets.
        folder: PathBuf,
    },
}

/// Gets CIFAR-10 into `data_dir` and returns the folder that holds the batches.
///
/// If it is there already, whole, nothing is fetched. `progress` is called after every piece of the archive.
pub fn cifar10(
    download: &Download,
    data_dir: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<PathBuf, DownloadError> {
    let target = data_dir.join(FOLDER);
    if target.exists() {
        check(&target)?;
        return Ok(target);
    }
    let work = WorkFolder::create(data_dir)?;
    let archive = work.path.join("archive.tar.gz");
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
    fs::rename(&unpacked, &target).map_err(file_error("write", &target))?;
    Ok(target)
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
        let path = data_dir.join(WORK_FOLDER);
        fs::create_dir_all(&path).map_err(file_error("create", &path))?;
        let lock_path = path.join("lock");
        let lock = File::create(&lock_path).map_err(file_error("create", &lock_path))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => DownloadError::Busy {
                folder: data_dir.to_owned(),
            },
            TryLockError::Error(source) => file_error("lock", &lock_path)(source),
        })?;
        // What a download that was killed left behind.
        let _ = fs::remove_file(path.join("archive.tar.gz"));
        let _ = fs::remove_dir_all(path.join("unpacked"));
        Ok(Self { path, _lock: lock })
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Url(url) => f.write_str(url),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

fn file_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DownloadError {
    move |source| DownloadError::File {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
