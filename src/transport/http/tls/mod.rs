//! TLS by rustls, for both ends: versions 1.2 and 1.3, HTTP/1.1 alone, no early data.
//!
//! Certificates, keys and authorities come as PEM. What is here never writes a file, and a private key never shows in an
//! error, in a log or by `Debug`.

mod accept;
mod authorities;
mod client;
mod error;
mod fingerprint;
mod identity;
mod pinned;
mod provider;
mod read_ahead;
mod server;

pub(super) use accept::shake_hands;
pub use authorities::Authorities;
pub use client::{ClientTls, Trust};
pub use error::TlsError;
pub use fingerprint::{Fingerprint, FingerprintError};
pub use identity::Identity;
pub use pinned::WrongFingerprint;
pub(super) use read_ahead::ReadAhead;
pub use server::{IdentityFiles, ServerTls};
