//! A dataset by name.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{DataError, Dataset, cifar10, digits};

/// A dataset as an operator writes it: `digits`, `cifar10` or `folder:PATH`. Serialised as its text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Source {
    /// The embedded digits.
    Digits,
    /// CIFAR-10 in its binary form.
    Cifar10,
    /// A folder of images. A relative path is looked for in the folder of datasets, then in the current folder, so
    /// that one job finds each worker's copy.
    Folder(PathBuf),
}

/// The names of the datasets that are not folders.
pub const KNOWN: [&str; 2] = ["digits", "cifar10"];

/// Opens the dataset of this name; see [`Source`] and [`Source::open`].
pub fn open(name: &str, data_dir: &Path) -> Result<Dataset, DataError> {
    name.parse::<Source>()?.open(data_dir)
}

impl Source {
    /// Reads the dataset into memory. `data_dir` comes from [`data_dir`](super::data_dir).
    pub fn open(&self, data_dir: &Path) -> Result<Dataset, DataError> {
        match self {
            Self::Digits => digits(),
            Self::Cifar10 => cifar10(data_dir),
            Self::Folder(path) => open_folder(path, data_dir),
        }
    }
}

#[cfg(feature = "vision")]
fn open_folder(path: &Path, data_dir: &Path) -> Result<Dataset, DataError> {
    // `join` with an absolute path gives that path alone.
    let mut looked_at = vec![data_dir.join(path)];
    if path.is_relative() {
        looked_at.push(path.to_owned());
    }
    match looked_at
        .iter()
        .find(|folder| folder.join("train").is_dir())
    {
        Some(found) => super::folder(found),
        None => Err(DataError::NotFound {
            dataset: format!("folder:{}", path.display()),
            looked_at,
            hint: "An image folder holds train/<class>/* and test/<class>/*.",
        }),
    }
}

#[cfg(not(feature = "vision"))]
fn open_folder(_path: &Path, _data_dir: &Path) -> Result<Dataset, DataError> {
    Err(DataError::NotBuilt { feature: "vision" })
}

impl FromStr for Source {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "digits" => Ok(Self::Digits),
            "cifar10" => Ok(Self::Cifar10),
            _ => match text.strip_prefix("folder:") {
                Some(path) if !path.is_empty() => Ok(Self::Folder(PathBuf::from(path))),
                _ => Err(DataError::Unknown {
                    text: text.to_owned(),
                }),
            },
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digits => f.write_str("digits"),
            Self::Cifar10 => f.write_str("cifar10"),
            Self::Folder(path) => write!(f, "folder:{}", path.display()),
        }
    }
}

impl TryFrom<String> for Source {
    type Error = DataError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Source> for String {
    fn from(source: Source) -> Self {
        source.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_display_and_json_are_inverses() {
        for text in ["digits", "cifar10", "folder:/some/where", "folder:here"] {
            let source: Source = text.parse().unwrap();
            assert_eq!(source.to_string(), text);
            let json = serde_json::to_string(&source).unwrap();
            assert_eq!(serde_json::from_str::<Source>(&json).unwrap(), source);
        }
        for text in ["", "mnist", "folder:", "folder", "Digits"] {
            let error = text.parse::<Source>().unwrap_err();
            assert!(matches!(error, DataError::Unknown { .. }), "{text}");
        }
    }

    #[test]
    fn digits_need_no_folder() {
        let data = open("digits", Path::new("/nowhere")).unwrap();
        assert_eq!(data.train.len() + data.test.len(), 1797);
        assert_eq!(data.fingerprint(), digits().unwrap().fingerprint());
    }

    #[test]
    fn a_folder_without_the_feature_names_it_and_with_it_says_where_it_looked() {
        let root = tempfile::tempdir().unwrap();
        let error = open("folder:photos", root.path()).unwrap_err();
        let message = error.to_string();
        if cfg!(feature = "vision") {
            let place = root.path().join("photos").display().to_string();
            assert!(message.contains(&place), "{message}");
        } else {
            assert!(message.contains("--features vision"), "{message}");
        }
    }
}
