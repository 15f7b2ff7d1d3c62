//! Who one end is: a certificate with its private key.

use std::{fmt, sync::Arc, time::Duration};

use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rustls::{
    CertificateError, Error as RustlsError, RootCertStore,
    client::verify_server_cert_signed_by_trust_anchor,
    pki_types::{
        CertificateDer, PrivateKeyDer, UnixTime,
        pem::{Error as PemError, PemObject},
    },
    server::ParsedCertificate,
    sign::CertifiedKey,
};

use super::{Fingerprint, TlsError, provider::provider};
use crate::{Cause, ids::Timestamp};

/// A certificate, those that lead from it to an authority, and its private key.
#[derive(Clone)]
pub struct Identity {
    key: Arc<CertifiedKey>,
    fingerprint: Fingerprint,
}

impl Identity {
    /// From PEM: the certificate before those of its authorities, and the key of the first. Both may be one text.
    ///
    /// # Errors
    ///
    /// [`TlsError`] if one is missing, is damaged or does not belong to the other.
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let certificates = certificates_of(certificates)?;
        let Some(first) = certificates.first() else {
            return Err(TlsError::Missing {
                what: "certificate",
                label: "CERTIFICATE",
            });
        };
        let fingerprint = Fingerprint::of(first);
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            PemError::NoItemsFound => TlsError::Missing {
                what: "private key",
                label: "PRIVATE KEY",
            },
            // What it says may quote the text, which has a key in it.
            _ => damaged("private key", "it is not PEM"),
        })?;
        let key = CertifiedKey::from_der(certificates, key, &provider());
        let key = key.map_err(|error| match error {
            RustlsError::InconsistentKeys(_) => TlsError::OtherKey,
            RustlsError::InvalidCertificate(reason) => damaged(
                "certificate",
                Cause::of(RustlsError::InvalidCertificate(reason)),
            ),
            _ => damaged(
                "private key",
                "it is not an unencrypted RSA, ECDSA or Ed25519 key",
            ),
        })?;
        Ok(Self {
            key: Arc::new(key),
            fingerprint,
        })
    }

    /// Makes a key, and a certificate for these names and IP addresses that it signs itself; both as one PEM text for
    /// [`Identity::from_pem`]. The text has the private key in it.
    ///
    /// # Errors
    ///
    /// A name that no certificate can have.
    pub fn self_signed_pem(names: &[String]) -> Result<String, TlsError> {
        let made = || {
            let mut parameters = CertificateParams::new(names)?;
            let mut name = DistinguishedName::new();
            name.push(DnType::CommonName, "fedavg");
            parameters.distinguished_name = name;
            // For either end.
            parameters.extended_key_usages = vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ];
            let key = KeyPair::generate()?;
            let certificate = parameters.self_signed(&key)?;
            Ok(format!("{}{}", certificate.pem(), key.serialize_pem()))
        };
        made().map_err(|error: rcgen::Error| TlsError::NotMade(Cause::of(error)))
    }

    /// When the certificate expired, if it has by this time.
    pub fn expired(&self, now: Timestamp) -> Option<Timestamp> {
        let first = self.key.cert.first()?;
        let certificate = ParsedCertificate::try_from(first).ok()?;
        let since = Duration::from_millis(now.0);
        // Its time is checked before its authority, so that none is needed here.
        let checked = verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &RootCertStore::empty(),
            &[],
            UnixTime::since_unix_epoch(since),
            provider().signature_verification_algorithms.all,
        );
        match checked {
            Err(RustlsError::InvalidCertificate(CertificateError::ExpiredContext {
                not_after,
                ..
            })) => Some(Timestamp(0) + Duration::from_secs(not_after.as_secs())),
            _ => None,
        }
    }

    /// The fingerprint of the certificate.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    pub(super) fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the key.
        let mut shown = formatter.debug_tuple("Identity");
        shown.field(&self.fingerprint).finish()
    }
}

/// The certificates of a PEM text.
pub(super) fn certificates_of(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        // Not the error itself: a text of both, certificate and key, is in it.
        found.push(certificate.map_err(|_| damaged("certificate", "it is not PEM"))?);
    }
    Ok(found)
}

pub(super) fn damaged(what: &'static str, reason: impl Into<Cause>) -> TlsError {
    TlsError::Damaged {
        what,
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_says_when_it_expired_and_not_before() {
        // rcgen's usual end: the year 4096.
        let pem = Identity::self_signed_pem(&["localhost".to_string()]).unwrap();
        let identity = Identity::from_pem(pem.as_bytes(), pem.as_bytes()).unwrap();
        let year = Duration::from_secs(365 * 24 * 3600);
        assert_eq!(identity.expired(Timestamp(0) + year * 60), None);
        let later = Timestamp(0) + year * 2200;
        let expired = identity.expired(later).unwrap();
        let earliest = Timestamp(0) + year * 2000;
        assert!(expired < later && expired > earliest, "{expired:?}");
    }

    #[test]
    fn what_is_missing_or_does_not_fit_is_said_without_the_key() {
        let pem = Identity::self_signed_pem(&["localhost".to_string()]).unwrap();
        let identity = Identity::from_pem(pem.as_bytes(), pem.as_bytes()).unwrap();
        let (_, secret) = pem.split_once("-----BEGIN PRIVATE KEY-----\n").unwrap();
        let secret = &secret[..30];
        assert!(!format!("{identity:?}").contains(secret));
        let other = Identity::self_signed_pem(&[]).unwrap();
        let half = &pem[..pem.len() - 60];
        let garbled = pem.replace(secret, &secret.to_lowercase());
        for (certificate, key, expected) in [
            ("", &*pem, "no certificate"),
            (&*pem, "", "no private key"),
            (&*pem, &*other, "does not belong"),
            (&*pem, half, "private key is damaged"),
            (&*pem, &*garbled, "private key is damaged"),
            (&pem[..200], &*pem, "certificate is damaged"),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                &*pem,
                "damaged",
            ),
        ] {
            let error = Identity::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap_err();
            let told = format!("{error} {error:?}");
            assert!(told.contains(expected), "{told}");
            assert!(!told.contains(secret), "{told}");
        }
    }
}
