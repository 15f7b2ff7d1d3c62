//! What else may connect to a port with TLS.

use std::{io, net::SocketAddr, time::Duration};

use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{any, raw_config};
use crate::transport::{
    Transport,
    http::tests::{
        Limits, Running,
        fake::{Fake, parameters},
    },
};

pub async fn open(
    connector: &TlsConnector,
    address: SocketAddr,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    connector.connect(name, stream).await
}

/// The answer to a request, with its head.
pub async fn get(connector: &TlsConnector, address: SocketAddr, path: &str) -> String {
    let mut stream = open(connector, address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// A client hello for this version of TLS and none later.
fn hello(version: [u8; 2]) -> Vec<u8> {
    let mut body = version.to_vec();
    body.extend([7; 32]);
    body.push(0);
    // TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 and TLS_RSA_WITH_AES_128_CBC_SHA.
    body.extend([0, 4, 0xc0, 0x2b, 0x00, 0x2f]);
    body.extend([1, 0]);
    // supported_groups (secp256r1), ec_point_formats, signature_algorithms (ecdsa_secp256r1_sha256).
    let extensions = [
        &[0u8, 10, 0, 4, 0, 2, 0, 23][..],
        &[0, 11, 0, 2, 1, 0],
        &[0, 13, 0, 4, 0, 2, 4, 3],
    ]
    .concat();
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let mut handshake = vec![1, 0];
    handshake.extend((body.len() as u16).to_be_bytes());
    handshake.extend(body);
    let mut record = vec![22, 3, 1];
    record.extend((handshake.len() as u16).to_be_bytes());
    record.extend(handshake);
    record
}

/// What comes until the other side closes, or resets the connection since it has not read all.
async fn told_by(running: &Running, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let mut told = Vec::new();
    let _ = stream.read_to_end(&mut told).await;
    told
}

#[tokio::test]
async fn a_handshake_that_stops_halfway_ends() {
    let (identity, tls) = any();
    let running = Running::secure(tls, |limits| {
        limits.server.header_timeout = Duration::from_millis(50);
    })
    .await;
    let whole = hello([3, 3]);
    // Nothing, a byte, half a hello, and a hello without what follows. `raw` reads until the other side closes.
    for part in [&whole[..0], &whole[..1], &whole[..40], &whole] {
        running.raw(part).await;
    }
    assert!(running.pinned(&identity).coordinator().await.is_ok());
}

#[tokio::test]
async fn a_handshake_counts_as_a_connection() {
    let (identity, tls) = any();
    let running = Running::secure(tls, |limits| limits.server.max_connections = 1).await;
    let mut half = TcpStream::connect(running.address).await.unwrap();
    half.write_all(&hello([3, 3])).await.unwrap();
    // The server has it: it has answered with its own hello.
    half.read_u8().await.unwrap();
    let client = running.pinned(&identity);
    let waiting = timeout(Duration::from_millis(50), client.coordinator()).await;
    assert!(waiting.is_err());
    drop(half);
    assert!(client.coordinator().await.is_ok());
}

#[tokio::test]
async fn a_handshake_does_not_hold_up_the_end() {
    let (_, tls) = any();
    let running = Running::secure(tls, |limits| {
        limits.server.drain_timeout = Duration::from_secs(3600);
    })
    .await;
    let mut half = TcpStream::connect(running.address).await.unwrap();
    half.write_all(&hello([3, 3])).await.unwrap();
    half.read_u8().await.unwrap();
    running.stop.send(()).unwrap();
    running.ended.await.unwrap();
}

#[tokio::test]
async fn what_is_not_tls_is_told_so_or_closed() {
    let (identity, tls) = any();
    let running = Running::secure(tls, |_| {}).await;
    let request =
        "POST /api/v1/workers HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000\r\n\r\n";
    for rest in [0, 100_000] {
        let told = running.raw(format!("{request}{}", "x".repeat(rest))).await;
        assert!(told.starts_with("HTTP/1.1 400 "), "{told}");
        assert!(
            told.contains("this port speaks TLS: use https://"),
            "{told}"
        );
    }
    assert!(told_by(&running, &[0xff, 0, 1]).await.is_empty());
    // A record of the handshake with garbage in it, one that is too long, and one of another kind inside.
    let garbage = [&[22, 3, 1, 0, 5][..], b"gnome"].concat();
    let long = [&[22, 3, 1, 0xff, 0xff][..], &[1; 70_000]].concat();
    for bytes in [garbage, long] {
        let told = told_by(&running, &bytes).await;
        // An alert, or nothing.
        assert!(told.is_empty() || told[0] == 21, "{told:?}");
    }
    assert!(running.pinned(&identity).coordinator().await.is_ok());
}

#[tokio::test]
async fn versions_before_1_2_are_refused() {
    let (_, tls) = any();
    let running = Running::secure(tls, |_| {}).await;
    for old in [[3, 1], [3, 2]] {
        let told = running.raw_bytes(hello(old)).await;
        // An alert, fatal: protocol_version.
        assert_eq!(told[0], 21, "{told:?}");
        assert_eq!(told[5..7], [2, 70], "{told:?}");
    }
}

#[tokio::test]
async fn version_1_2_is_spoken() {
    let (_, tls) = any();
    let running = Running::secure(tls, |_| {}).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(&hello([3, 3])).await.unwrap();
    let mut answer = [0; 11];
    stream.read_exact(&mut answer).await.unwrap();
    // A record of the handshake with a server hello of version 1.2.
    assert_eq!((answer[0], &answer[9..11]), (22, &[3, 3][..]));
}

#[tokio::test]
async fn a_reader_that_stalls_is_broken_off_under_tls_too() {
    let (identity, tls) = any();
    let limits = Limits::with(|limits| {
        limits.server.tls = Some(tls);
        limits.server.stall_timeout = Duration::from_millis(50);
        limits.server.max_connections = 1;
    });
    let model = parameters(16 << 20, 3);
    let running = Running::start(Fake::with_model(model), limits).await;
    let connector = TlsConnector::from(raw_config(&identity));
    let mut stalled = open(&connector, running.address).await.unwrap();
    let request = "GET /api/v1/jobs/1/models/3 HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stalled.write_all(request.as_bytes()).await.unwrap();
    stalled.read_u8().await.unwrap();
    // The one place is free again, though nobody has closed the connection on this side.
    assert!(running.pinned(&identity).coordinator().await.is_ok());
}
