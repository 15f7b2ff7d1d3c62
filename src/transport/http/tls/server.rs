//! A server's side: who it is, and which clients it lets in.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustls::{
    ServerConfig,
    server::{NoClientAuth, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::SingleCertAndKey,
};
use sha2::{Digest, Sha256};
use tracing::{info, warn};

use super::{
    Authorities, Fingerprint, Identity, TlsError,
    identity::damaged,
    provider::{HTTP_1_1, provider},
};
use crate::Cause;

/// How often the files are looked at, at most.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// The files of an identity, in PEM. They may be one.
#[derive(Debug, Clone)]
pub struct IdentityFiles {
    /// The certificate, before those of its authorities.
    pub certificate: PathBuf,
    /// Its private key, not encrypted.
    pub key: PathBuf,
}

impl IdentityFiles {
    /// What is in them.
    ///
    /// # Errors
    ///
    /// [`TlsError`].
    pub fn read(&self) -> Result<Identity, TlsError> {
        let (certificate, key) = self.contents()?;
        Identity::from_pem(&certificate, &key)
    }

    fn contents(&self) -> Result<(Vec<u8>, Vec<u8>), TlsError> {
        Ok((contents(&self.certificate)?, contents(&self.key)?))
    }
}

fn contents(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::File {
        path: path.to_owned(),
        source,
    })
}

/// How a server speaks TLS. Clones share the certificate.
#[derive(Clone)]
pub struct ServerTls(Arc<Shared>);

struct Shared {
    clients: Option<Authorities>,
    files: Option<IdentityFiles>,
    check_every: Duration,
    current: Mutex<Current>,
}

struct Current {
    config: Arc<ServerConfig>,
    fingerprint: Fingerprint,
    /// When somebody looked at the files last.
    checked: Instant,
    /// What was found there: a digest of the contents, or what was wrong with them. So a change is told once.
    found: Result<[u8; 32], String>,
}

impl ServerTls {
    /// With this identity. `clients`: the authorities of clients' certificates; others than their holders are kept out.
    ///
    /// # Errors
    ///
    /// Authorities that can't be used.
    pub fn new(identity: &Identity, clients: Option<Authorities>) -> Result<Self, TlsError> {
        Self::build(identity, clients, None, Ok([0; 32]))
    }

    /// With the identity in these files. If they change, connections that come later get what is there then: at each
    /// connection they are looked at, at most every 5 s. What can't be used is warned of, and the last identity is kept.
    ///
    /// # Errors
    ///
    /// Files or authorities that can't be used.
    pub fn from_files(
        files: IdentityFiles,
        clients: Option<Authorities>,
    ) -> Result<Self, TlsError> {
        let (certificate, key) = files.contents()?;
        let identity = Identity::from_pem(&certificate, &key)?;
        let found = Ok(digest(&certificate, &key));
        Self::build(&identity, clients, Some(files), found)
    }

    fn build(
        identity: &Identity,
        clients: Option<Authorities>,
        files: Option<IdentityFiles>,
        found: Result<[u8; 32], String>,
    ) -> Result<Self, TlsError> {
        let current = Current {
            config: config(identity, clients.as_ref())?,
            fingerprint: identity.fingerprint(),
            checked: Instant::now(),
            found,
        };
        Ok(Self(Arc::new(Shared {
            clients,
            files,
            check_every: CHECK_EVERY,
            current: Mutex::new(current),
        })))
    }

    /// Looks at the files at each connection that comes this much later than the last look.
    #[cfg(test)]
    pub(in crate::transport::http) fn check_every(mut self, time: Duration) -> Self {
        let shared = Arc::get_mut(&mut self.0).expect("no clone");
        shared.check_every = time;
        self
    }

    /// The fingerprint of the certificate that connections get now.
    pub fn fingerprint(&self) -> Fingerprint {
        self.0.current().fingerprint
    }

    /// The configuration of the next connection.
    pub(super) async fn config(&self) -> Arc<ServerConfig> {
        if self.0.is_to_check() {
            let shared = self.0.clone();
            // A task that panicked has changed nothing.
            let _ = tokio::task::spawn_blocking(move || shared.check()).await;
        }
        self.0.current().config.clone()
    }
}

impl Shared {
    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is time to look at the files. Says so to one caller.
    fn is_to_check(&self) -> bool {
        if self.files.is_none() {
            return false;
        }
        let mut current = self.current();
        let is_due = current.checked.elapsed() >= self.check_every;
        if is_due {
            current.checked = Instant::now();
        }
        is_due
    }

    /// Takes over what is in the files, if it has changed.
    fn check(&self) {
        let Some(files) = &self.files else {
            return;
        };
        let read = files.contents().map_err(Cause::of);
        let found = match &read {
            Ok((certificate, key)) => Ok(digest(certificate, key)),
            Err(reason) => Err(reason.to_string()),
        };
        if self.current().found == found {
            return;
        }
        let loaded = read.and_then(|(certificate, key)| {
            let identity = Identity::from_pem(&certificate, &key).map_err(Cause::of)?;
            let config = config(&identity, self.clients.as_ref()).map_err(Cause::of)?;
            Ok((identity.fingerprint(), config))
        });
        let mut current = self.current();
        current.found = found;
        let file = files.certificate.display();
        match loaded {
            Ok((fingerprint, config)) => {
                current.fingerprint = fingerprint;
                current.config = config;
                info!(%file, %fingerprint, "took over a new certificate");
            }
            Err(reason) => {
                warn!(%file, %reason, "the certificate's files can't be used: the last certificate is kept");
            }
        }
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("ServerTls");
        shown.field("fingerprint", &self.fingerprint());
        shown.field("files", &self.0.files);
        shown.field("clients", &self.0.clients).finish()
    }
}

fn digest(certificate: &[u8], key: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update((certificate.len() as u64).to_le_bytes());
    hash.update(certificate);
    hash.update(key);
    hash.finalize().into()
}

fn config(
    identity: &Identity,
    clients: Option<&Authorities>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let verifier: Arc<dyn ClientCertVerifier> = match clients {
        Some(authorities) => {
            let roots = authorities.roots();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
            verifier.map_err(|error| damaged("authority of clients", Cause::of(error)))?
        }
        None => Arc::new(NoClientAuth),
    };
    let builder = ServerConfig::builder_with_provider(provider());
    let builder = builder.with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| TlsError::NotMade(Cause::of(error)))?;
    let key = SingleCertAndKey::from(identity.key().clone());
    let mut config = builder
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(key));
    config.alpn_protocols = vec![HTTP_1_1.to_vec()];
    Ok(Arc::new(config))
}
