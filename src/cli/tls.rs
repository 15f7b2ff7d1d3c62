//! TLS: the flags of a coordinator, and those of everybody who asks one.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::Args;

use super::{
    Failure,
    listen::{Place, Scheme},
    plain::{PlainArgs, is_private},
    text_file::{SMALL, read_text, warn_if_shared},
    values::{now, time},
    whole_file::WholeFile,
};
use crate::transport::http::{
    Address, Authorities, ClientConfig, ClientTls, Fingerprint, FingerprintError, Identity,
    IdentityFiles, ServerTls, TlsError, Trust,
};

/// The file of a coordinator's own certificate and key in its state folder.
const SELF_SIGNED: &str = "tls.pem";

/// How a coordinator speaks TLS.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "TLS")]
pub struct ServerTlsArgs {
    /// Speak TLS with the certificate in this file: PEM, before those of its authorities. If the file changes, connections
    /// that come later get the new one
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The private key of --tls-cert: PEM, not encrypted
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Speak TLS with a certificate that this coordinator makes once and keeps in its state folder (with --in-memory, for
    /// this run alone). Workers know it by its fingerprint, which is in the line that tells how they join
    #[arg(long, conflicts_with_all = ["tls_cert", "tls_key"])]
    pub tls_self_signed: bool,
    /// Let only those in whose certificate one of the authorities in this file (PEM) has signed
    #[arg(long, value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,
    /// Plain HTTP.
    #[command(flatten)]
    pub plain: PlainArgs,
}

/// How a coordinator speaks TLS, once all that can be checked without its folder is checked.
pub(super) struct CheckedTls {
    source: Source,
    clients: Option<Authorities>,
}

enum Source {
    None,
    Files(IdentityFiles),
    SelfSigned,
}

impl ServerTlsArgs {
    /// Whether connections are encrypted.
    fn scheme(&self) -> Scheme {
        if self.tls_self_signed || self.tls_cert.is_some() {
            Scheme::Https
        } else {
            Scheme::Http
        }
    }

    /// Checks the flags, for a coordinator that listens here and is advertised there. Plain HTTP that is not allowed is an
    /// error.
    pub(super) fn check(
        &self,
        listening: SocketAddr,
        advertised: Option<&Place>,
    ) -> Result<CheckedTls, Failure> {
        let source = match (&self.tls_cert, &self.tls_key) {
            _ if self.tls_self_signed => Source::SelfSigned,
            (Some(certificate), Some(key)) => Source::Files(IdentityFiles {
                certificate: certificate.clone(),
                key: key.clone(),
            }),
            _ => Source::None,
        };
        if self.scheme() == Scheme::Http {
            if self.tls_client_ca.is_some() {
                return Err(Failure::Usage(
                    "--tls-client-ca needs TLS: --tls-self-signed, or --tls-cert and --tls-key"
                        .to_string(),
                ));
            }
            self.check_plain(listening, advertised)?;
        } else if let Some(place) = advertised {
            check_advertised_tls(place)?;
        }
        if let Source::Files(files) = &source {
            let identity = files.read();
            let identity = identity.map_err(|error| unusable(CERTIFICATE, &error))?;
            if let Some(expired) = identity.expired(now()) {
                tracing::warn!(
                    "the certificate in {} expired on {}: clients that check dates refuse it",
                    files.certificate.display(),
                    time(expired)
                );
            }
            warn_if_shared(&files.key, "chmod 600");
        }
        let clients = self.tls_client_ca.as_deref();
        Ok(CheckedTls {
            source,
            clients: authorities("--tls-client-ca", clients)?,
        })
    }

    fn check_plain(
        &self,
        listening: SocketAddr,
        advertised: Option<&Place>,
    ) -> Result<(), Failure> {
        let instead = "Encrypt it with --tls-self-signed, or --tls-cert and --tls-key";
        let host = listening.ip().to_string();
        self.plain
            .check(&format!("--bind {listening}"), &host, instead)?;
        let Some(place) = advertised else {
            return Ok(());
        };
        // Said once: a network that may be listened on may be told of, too.
        if place.scheme(Scheme::Http) == Scheme::Http && is_private(&host) {
            let what = format!("--advertise {}", place.host());
            self.plain.check(&what, place.host(), instead)?;
        }
        Ok(())
    }

    /// What workers need beside the coordinator's address, as it was advertised to them.
    pub(super) fn join_flags(&self, url: &str, tls: Option<&ServerTls>) -> String {
        let mut flags = String::new();
        let address = Address::parse(url).ok();
        let is_plain = address.is_some_and(|to| !to.is_tls() && !is_private(to.host()));
        if is_plain {
            flags.push_str(" --plain");
        }
        if self.tls_self_signed
            && let Some(tls) = tls
        {
            flags.push_str(&format!(" --fingerprint {}", tls.fingerprint()));
        }
        if self.tls_client_ca.is_some() {
            flags.push_str(" --tls-client-cert FILE --tls-client-key FILE");
        }
        flags
    }
}

/// Refuses to tell workers to use plain HTTP with a coordinator that speaks TLS: they would send their tokens readable, and get
/// no answer.
fn check_advertised_tls(place: &Place) -> Result<(), Failure> {
    if place.scheme(Scheme::Https) == Scheme::Https {
        return Ok(());
    }
    let host = place.host();
    Err(Failure::Usage(format!(
        "--advertise http://{host}: the coordinator speaks TLS, so plain HTTP gets no answer from it. Write --advertise {host}, \
         or leave TLS out if what is in front of it speaks plain HTTP"
    )))
}

const CERTIFICATE: &str = "--tls-cert and --tls-key";

impl CheckedTls {
    /// Whether connections are encrypted.
    pub fn scheme(&self) -> Scheme {
        match self.source {
            Source::None => Scheme::Http,
            Source::Files(_) | Source::SelfSigned => Scheme::Https,
        }
    }

    /// What the server speaks; none: plain HTTP. A certificate that it makes itself is kept in the folder, if there is one;
    /// it is for this host, too, if one is advertised.
    pub fn server(
        self,
        folder: Option<&Path>,
        advertised: Option<&Place>,
    ) -> Result<Option<ServerTls>, Failure> {
        let tls = match self.source {
            Source::None => return Ok(None),
            Source::Files(files) => ServerTls::from_files(files, self.clients)
                .map_err(|error| unusable(CERTIFICATE, &error))?,
            Source::SelfSigned => {
                let identity = self_signed(folder, advertised)?;
                ServerTls::new(&identity, self.clients)
                    .map_err(|error| unusable("--tls-self-signed", &error))?
            }
        };
        tracing::info!(fingerprint = %tls.fingerprint(), "the coordinator speaks TLS");
        Ok(Some(tls))
    }
}

/// The certificate of a coordinator that makes its own.
fn self_signed(folder: Option<&Path>, advertised: Option<&Place>) -> Result<Identity, Failure> {
    let file = folder.map(|folder| folder.join(SELF_SIGNED));
    if let Some(file) = &file {
        match fs::read(file) {
            Ok(pem) => {
                return Identity::from_pem(&pem, &pem).map_err(|error| {
                    let what = format!(
                        "{}: remove it, and a new one is made, whose fingerprint workers must be told",
                        file.display()
                    );
                    unusable(&what, &error)
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Failure::of_file(file, error)),
        }
    }
    // For clients that compare names, with the certificate as their authority.
    let mut names = ["localhost", "127.0.0.1", "::1"]
        .map(str::to_string)
        .to_vec();
    if let Some(place) = advertised {
        let host = place.host().trim_matches(['[', ']']).to_string();
        if !names.contains(&host) {
            names.push(host);
        }
    }
    let made = Identity::self_signed_pem(&names);
    let pem = made.map_err(|error| unusable("--tls-self-signed", &error))?;
    if let Some(file) = &file {
        let mut whole = WholeFile::create(file)?.private()?;
        let written = io::Write::write_all(&mut whole, pem.as_bytes());
        written.map_err(|error| Failure::of_file(file, error))?;
        whole.put_in_place()?;
    }
    Identity::from_pem(pem.as_bytes(), pem.as_bytes())
        .map_err(|error| unusable("--tls-self-signed", &error))
}

/// How a worker or an operator speaks TLS with a coordinator.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "TLS")]
pub struct ClientTlsArgs {
    /// The fingerprint (SHA-256) of the coordinator's certificate, as the coordinator prints it: this certificate is
    /// trusted, whatever its names and dates, and no other one
    #[arg(long, value_name = "SHA256", env = "FEDAVG_FINGERPRINT", value_parser = fingerprint)]
    pub fingerprint: Option<Pin>,
    /// The authorities whose certificates are trusted, in PEM [default: those that browsers trust]
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// This client's own certificate in PEM, for a coordinator that wants one
    #[arg(long, value_name = "FILE", requires = "tls_client_key")]
    pub tls_client_cert: Option<PathBuf>,
    /// The private key of --tls-client-cert: PEM, not encrypted
    #[arg(long, value_name = "FILE", requires = "tls_client_cert")]
    pub tls_client_key: Option<PathBuf>,
    /// Plain HTTP.
    #[command(flatten)]
    pub plain: PlainArgs,
}

/// A pinned fingerprint; none if the variable is set to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin(pub Option<Fingerprint>);

fn fingerprint(text: &str) -> Result<Pin, FingerprintError> {
    if text.is_empty() {
        return Ok(Pin(None));
    }
    text.parse().map(|fingerprint| Pin(Some(fingerprint)))
}

impl ClientTlsArgs {
    /// The configuration of a client of this coordinator.
    ///
    /// # Errors
    ///
    /// Files that can't be used, plain HTTP that is not allowed, or flags for TLS with an address that has none.
    pub fn config(&self, coordinator: &str) -> Result<ClientConfig, Failure> {
        let address = Address::parse(coordinator);
        let address = address.map_err(|error| Failure::Usage(error.to_string()))?;
        let pin = self.fingerprint.and_then(|Pin(fingerprint)| fingerprint);
        let wants_tls = pin.is_some() || self.tls_ca.is_some() || self.tls_client_cert.is_some();
        if wants_tls && !address.is_tls() {
            // Who names a certificate believes that it counts.
            return Err(Failure::Usage(format!(
                "--fingerprint, --tls-ca and --tls-client-cert need an address with https://, and --coordinator is \
                 {coordinator}"
            )));
        }
        self.plain.check_coordinator(coordinator, &address)?;
        let mut tls = ClientTls::default();
        if let Some(fingerprint) = pin {
            tls.trust = Trust::Pinned(fingerprint);
        } else if let Some(found) = authorities("--tls-ca", self.tls_ca.as_deref())? {
            tls.trust = Trust::Authorities(found);
        }
        if let (Some(certificate), Some(key)) = (&self.tls_client_cert, &self.tls_client_key) {
            let files = IdentityFiles {
                certificate: certificate.clone(),
                key: key.clone(),
            };
            let identity = files.read();
            let what = "--tls-client-cert and --tls-client-key";
            warn_if_shared(key, "chmod 600");
            tls.identity = Some(identity.map_err(|error| unusable(what, &error))?);
        }
        Ok(ClientConfig {
            tls,
            ..ClientConfig::default()
        })
    }
}

/// The authorities in the file that a flag names, if it names one.
fn authorities(flag: &str, file: Option<&Path>) -> Result<Option<Authorities>, Failure> {
    let Some(file) = file else {
        return Ok(None);
    };
    let pem = read_text(file, SMALL);
    let pem = pem.map_err(|failure| Failure::Usage(format!("{flag} {failure}")))?;
    let what = format!("{flag} {}", file.display());
    let found = Authorities::from_pem(pem.as_bytes());
    found.map(Some).map_err(|error| unusable(&what, &error))
}

fn unusable(what: &str, error: &TlsError) -> Failure {
    Failure::unusable(what, error)
}
