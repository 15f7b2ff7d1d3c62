//! The archive to get, and the checksum that it must have.

use std::{path::PathBuf, str::FromStr};

use super::error::DownloadError;

/// The address at which CIFAR-10's author publishes its binary form, 170 052 171 bytes.
pub const CIFAR10_URL: &str = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz";
/// The SHA-256 of that archive, whose published MD5 is `c32a1d4ab5d03f1284b67883e8d87530`.
pub const CIFAR10_SHA256: &str = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd";

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
pub struct Checksum(pub(super) String);

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

/// The archive to get, and the checksum that it must have. The default is the published archive.
#[derive(Debug, Clone)]
pub struct Download {
    /// The archive.
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

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Url(url) => f.write_str(url),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}
