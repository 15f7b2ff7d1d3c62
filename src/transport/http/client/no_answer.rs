//! Why a request got no answer, as far as TLS knows.

use std::{error::Error, fmt, io};

use rustls::{AlertDescription, CertificateError, Error as RustlsError, InvalidMessage};

use crate::{
    Cause,
    transport::{TransportError, http::tls::WrongFingerprint},
};

/// The error of a request that got no answer from this place. `was_reached`: an earlier one got one. What is wrong with a
/// certificate then may pass, as when it is being renewed, or when somebody else answers for a while; before, it is a
/// mistake in the arguments, most likely, and trying again is of no use.
pub(super) fn no_answer(
    place: impl fmt::Display,
    was_reached: bool,
    error: impl Error + Send + Sync + 'static,
) -> TransportError {
    let cause = match of_tls(&error) {
        Some(RustlsError::InvalidCertificate(reason)) => wrong_certificate(&place, reason),
        Some(RustlsError::NoCertificatesPresented) => {
            format!("{place}: the coordinator shows no certificate").into()
        }
        Some(RustlsError::AlertReceived(alert)) if is_of_certificate(*alert) => format!(
            "{place}: the coordinator does not take this client's certificate, or wants one and got none ({alert:?})"
        )
        .into(),
        Some(RustlsError::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            let text = format!("{place}: the coordinator speaks plain HTTP, not TLS: use http://");
            return TransportError::Protocol(text.into());
        }
        Some(
            RustlsError::AlertReceived(
                AlertDescription::ProtocolVersion
                | AlertDescription::HandshakeFailure
                | AlertDescription::NoApplicationProtocol,
            )
            | RustlsError::PeerIncompatible(_)
            | RustlsError::NoApplicationProtocol,
        ) => return TransportError::Protocol(Cause::about(place, error)),
        _ => return TransportError::Unreachable(Cause::about(place, error)),
    };
    if was_reached {
        TransportError::Unreachable(cause)
    } else {
        TransportError::Untrusted(cause)
    }
}

/// What TLS says behind an error.
fn of_tls<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a RustlsError> {
    let mut next = Some(error);
    while let Some(error) = next {
        // An `io::Error` is not the source of what it carries: it has it inside.
        let inner = error.downcast_ref::<io::Error>();
        let inner = inner.and_then(io::Error::get_ref);
        if let Some(inner) = inner
            && let Some(found) = inner.downcast_ref::<RustlsError>()
        {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn wrong_certificate(place: &impl fmt::Display, reason: &CertificateError) -> Cause {
    let CertificateError::Other(other) = reason else {
        let reason = reason.clone();
        return match reason {
            // The latter of an authority that was made again under the same name.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
                "{place}: no authority that is trusted here has signed the coordinator's certificate; name its \
                 fingerprint (--fingerprint), or its authority (--tls-ca)"
            )
            .into(),
            reason => Cause::about(place, RustlsError::InvalidCertificate(reason)),
        };
    };
    match other.0.downcast_ref::<WrongFingerprint>() {
        Some(wrong) => Cause::about(place, *wrong),
        None => Cause::about(place, other.clone()),
    }
}

/// Whether the coordinator has an objection to the client's certificate.
fn is_of_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError
    )
}
