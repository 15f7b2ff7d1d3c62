//! Why TLS can't be set up.

use std::{io, path::PathBuf};

use thiserror::Error;

use crate::Cause;

/// A certificate, a key or an authority that can't be used. It never has a byte of a key.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file that can't be read.
    #[error("{} can't be read", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A text without what it should have.
    #[error(
        "there is no {what}: PEM is expected, with a line \"-----BEGIN {label}-----\" before it"
    )]
    Missing {
        /// What is missing, in words.
        what: &'static str,
        /// What PEM calls it.
        label: &'static str,
    },
    /// A text that is damaged.
    #[error("the {what} is damaged: {reason}")]
    Damaged {
        /// What is damaged, in words.
        what: &'static str,
        /// In which way.
        reason: Cause,
    },
    /// The key is another certificate's.
    #[error("the private key does not belong to the certificate")]
    OtherKey,
    /// No certificate can be made.
    #[error("no certificate can be made: {0}")]
    NotMade(#[source] Cause),
}
