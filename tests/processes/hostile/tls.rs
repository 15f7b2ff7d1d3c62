//! TLS that is not finished, is no TLS, or comes too early.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, HandshakeKind, ProtocolVersion,
    SignatureScheme, StreamOwned,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::ring,
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::{
    victim::Victim,
    wire::{answer, connect, request},
};

/// An attacker does not care who the coordinator is.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

/// A client that sends early data if it may.
fn config() -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = builder.dangerous();
    let builder = builder.with_custom_certificate_verifier(Arc::new(Anybody));
    let mut config = builder.with_no_client_auth();
    config.enable_early_data = true;
    Arc::new(config)
}

fn client(config: &Arc<ClientConfig>) -> ClientConnection {
    let name = ServerName::try_from("localhost").unwrap();
    ClientConnection::new(config.clone(), name).unwrap()
}

/// The first message of a handshake.
fn hello() -> Vec<u8> {
    let mut bytes = Vec::new();
    client(&config()).write_tls(&mut bytes).unwrap();
    bytes
}

/// Each from as many addresses as it takes for the limit of strangers of one.
const OF_EACH: usize = 300;

#[test]
fn handshakes_that_do_not_end_are_closed_and_hold_nobody_up() {
    let victim = Victim::start("--tls-self-signed --stranger-idle 4");
    let hello = hello();
    let claims = [&[22, 3, 1, 0x40, 0][..], &[1, 0xff, 0xff, 0xff]].concat();
    let garbage: Vec<u8> = (0..2000_u32).map(|value| (value * 7 + 3) as u8).collect();
    let record = [&[22, 3, 1][..], &garbage].concat();
    let mut open: Vec<TcpStream> = Vec::new();
    for begun in [
        &[][..],
        &hello[..1],
        &hello[..5],
        &hello[..hello.len() - 1],
        &hello,
        &claims,
        &garbage,
        &record,
        b"GET / HTTP/1.1\r\n",
    ] {
        for index in 0..OF_EACH {
            let from = [127, 0, 2, 1 + (index % 20) as u8];
            let mut stream = connect(from, victim.to).unwrap();
            stream.write_all(begun).unwrap();
            open.push(stream);
        }
    }
    let plain = answer(
        [127, 0, 2, 1],
        victim.to,
        &request("GET /api/v1/health", ""),
    );
    assert_eq!(plain.problem(), (400, "tls_required".to_string()));
    let attack = format!("{} handshakes that do not end", open.len());
    victim.withstands(&attack, 256);
    victim.is_rid_of_them();
}

/// A connection over TLS on which this was answered, until its end.
fn answered(
    victim: &Victim,
    config: &Arc<ClientConfig>,
    bytes: &[u8],
) -> (StreamOwned<ClientConnection, TcpStream>, String) {
    let stream = connect([127, 0, 2, 1], victim.to).unwrap();
    let mut stream = StreamOwned::new(client(config), stream);
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    // Without a `close_notify` this is an error, and the answer is there.
    let _ = stream.read_to_end(&mut answer);
    (stream, String::from_utf8_lossy(&answer).into_owned())
}

#[test]
fn early_data_is_not_offered_to_a_client_that_comes_again() {
    let victim = Victim::start("--tls-self-signed");
    let config = config();
    let health = request("GET /api/v1/health", "");
    let (first, told) = answered(&victim, &config, &health);
    assert!(told.starts_with("HTTP/1.1 200"), "{told}");
    assert_eq!(
        first.conn.protocol_version(),
        Some(ProtocolVersion::TLSv1_3)
    );
    drop(first);
    // The ticket of the first connection does not allow it.
    let mut second = client(&config);
    assert!(second.early_data().is_none(), "early data may be sent");
    drop(second);
    let (third, told) = answered(&victim, &config, &health);
    assert!(told.starts_with("HTTP/1.1 200"), "{told}");
    assert_eq!(third.conn.handshake_kind(), Some(HandshakeKind::Resumed));
    assert!(!third.conn.is_early_data_accepted());
}
