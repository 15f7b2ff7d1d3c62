//! Why a dataset could not be opened or used.

use std::io;
use std::path::{Path, PathBuf};

/// What goes wrong between a dataset's name and a batch of its examples.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The text names no dataset.
    #[error("unknown dataset {text:?}: use digits, cifar10 or folder:PATH")]
    Unknown {
        /// What was given.
        text: String,
    },
    /// None of the folders that were looked at has the dataset.
    #[error("dataset {dataset} not found; looked at {}. {hint}", list(.looked_at))]
    NotFound {
        /// The dataset asked for.
        dataset: String,
        /// Every folder that was looked at, in order.
        looked_at: Vec<PathBuf>,
        /// What to do about it.
        hint: &'static str,
    },
    /// This binary was built without what reads the dataset.
    #[error(
        "this binary was built without image folders: rebuild it with `cargo build --release --features {feature}`"
    )]
    NotBuilt {
        /// The Cargo feature to enable.
        feature: &'static str,
    },
    /// There is no folder to look in: neither an argument nor the environment names one, and the user has no cache folder.
    #[error(
        "no folder to look for datasets in, since this user has no cache folder: give --data-dir, or set FEDAVG_DATA"
    )]
    NoDataDir,
    /// A file could not be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A file is not what its format says: truncated, of a wrong size, or with values out of range.
    #[error("{} is damaged, or is another kind of file: {reason}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Pixels, labels and shape of an image set do not belong together.
    #[error("image set {name}: {reason}")]
    Inconsistent {
        /// The set's name.
        name: String,
        /// What does not fit.
        reason: String,
    },
    /// An index past the end of the set.
    #[error("there is no example {index} in {set}: it has {examples}, counted from 0")]
    IndexOutOfRange {
        /// The set's name.
        set: String,
        /// The index asked for.
        index: u32,
        /// How many examples there are.
        examples: usize,
    },
}

impl DataError {
    /// A file or folder that is not what its format says.
    pub(super) fn malformed(path: &Path, reason: impl Into<String>) -> Self {
        Self::Malformed {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }

    /// A file or folder that the operating system does not read.
    pub(super) fn unreadable(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        Self::Read { path, source }
    }
}

fn list(paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    paths.join(" and ")
}
