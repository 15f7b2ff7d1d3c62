//! The authorities that one end trusts.

use std::{fmt, sync::Arc};

use rustls::RootCertStore;

use super::{
    TlsError,
    identity::{certificates_of, damaged},
};
use crate::Cause;

/// Certificates of authorities: who has a certificate that one of them signed is trusted.
#[derive(Clone)]
pub struct Authorities(Arc<RootCertStore>);

impl Authorities {
    /// From PEM, with one certificate or more.
    ///
    /// # Errors
    ///
    /// [`TlsError`] if there is none, or one is damaged.
    pub fn from_pem(pem: &[u8]) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates_of(pem)? {
            let added = roots.add(certificate);
            added.map_err(|error| damaged("certificate of an authority", Cause::of(error)))?;
        }
        if roots.is_empty() {
            return Err(TlsError::Missing {
                what: "certificate of an authority",
                label: "CERTIFICATE",
            });
        }
        Ok(Self(Arc::new(roots)))
    }

    /// Those that browsers trust, as they were when this program was built.
    pub(super) fn public() -> Self {
        let roots = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
        Self(Arc::new(roots))
    }

    pub(super) fn roots(&self) -> Arc<RootCertStore> {
        self.0.clone()
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Authorities({})", self.0.len())
    }
}
