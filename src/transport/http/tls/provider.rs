//! What both ends have in common.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};

/// The protocol that both ends name by ALPN.
pub(super) const HTTP_1_1: &[u8] = b"http/1.1";

/// The cryptography. It is named and not installed, so that a program around this crate may have another one.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
