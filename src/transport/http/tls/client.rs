//! A client's side: whom it trusts, and who it is.

use std::sync::Arc;

use rustls::{
    ClientConfig, Error as RustlsError, client::WebPkiServerVerifier,
    client::danger::ServerCertVerifier, sign::SingleCertAndKey,
};

use super::{
    Authorities, Fingerprint, Identity,
    pinned::Pinned,
    provider::{HTTP_1_1, provider},
};

/// Whom a client trusts. The default is [`Trust::Public`].
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Trust {
    /// A certificate of an authority that browsers trust, for the coordinator's name.
    #[default]
    Public,
    /// A certificate of one of these authorities, for the coordinator's name.
    Authorities(Authorities),
    /// The certificate with this fingerprint alone, whatever its names and dates.
    Pinned(Fingerprint),
}

/// How a client speaks TLS, if the coordinator's address begins with `https://`.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ClientTls {
    /// Whom it trusts.
    pub trust: Trust,
    /// Who it is, for coordinators that want to know; nobody by default.
    pub identity: Option<Identity>,
}

impl ClientTls {
    /// A client that trusts so, and says not who it is.
    pub fn new(trust: Trust) -> Self {
        Self {
            trust,
            identity: None,
        }
    }

    pub(in crate::transport::http) fn config(&self) -> Result<ClientConfig, RustlsError> {
        let provider = provider();
        let verifier: Arc<dyn ServerCertVerifier> = match &self.trust {
            Trust::Public => verifier(&Authorities::public())?,
            Trust::Authorities(authorities) => verifier(authorities)?,
            Trust::Pinned(fingerprint) => Arc::new(Pinned::new(*fingerprint, provider.clone())),
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &self.identity {
            Some(identity) => {
                let key = SingleCertAndKey::from(identity.key().clone());
                builder.with_client_cert_resolver(Arc::new(key))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![HTTP_1_1.to_vec()];
        Ok(config)
    }
}

fn verifier(authorities: &Authorities) -> Result<Arc<WebPkiServerVerifier>, RustlsError> {
    let builder = WebPkiServerVerifier::builder_with_provider(authorities.roots(), provider());
    let verifier = builder.build();
    verifier.map_err(|error| RustlsError::General(error.to_string()))
}
