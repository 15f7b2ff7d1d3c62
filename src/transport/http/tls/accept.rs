//! A server's handshake, and what a peer is told that speaks something else.

use std::{io, sync::Arc};

use axum::http::StatusCode;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::debug;

use super::{Fingerprint, ReadAhead, ServerTls};
use crate::transport::http::{
    callers::Received,
    guard::{Drain, Guarded},
    inbound::Linger,
    problem::{PROBLEM_JSON, Problem},
};

/// The first byte of every TLS connection: a record of the handshake.
const HANDSHAKE: u8 = 22;

/// A connection after its handshake.
pub(in crate::transport::http) struct Shaken {
    pub stream: TlsStream<ReadAhead<Guarded<TcpStream>>>,
    /// That of the client's certificate, if it has shown one.
    pub certificate: Option<Fingerprint>,
}

/// Does the handshake; none if there is nothing to serve. The caller limits the time.
pub(in crate::transport::http) async fn shake_hands(
    mut stream: TcpStream,
    tls: &ServerTls,
    drain: Drain,
    received: Option<Arc<Received>>,
    linger: Linger,
) -> Option<Shaken> {
    let mut first = [0];
    let count = stream.peek(&mut first).await.ok()?;
    if count == 0 {
        return None;
    }
    if first[0] != HANDSHAKE {
        debug!("a peer does not speak TLS");
        // Only what may be HTTP gets an answer in HTTP.
        if first[0].is_ascii_alphabetic() {
            stream.write_all(&not_tls()).await.ok()?;
            hear_out(stream, linger).await;
        }
        return None;
    }
    let config = tls.config().await;
    let stream = ReadAhead::new(Guarded::new(stream, drain).paced(received));
    let accepted = TlsAcceptor::from(config).accept(stream).into_fallible();
    match accepted.await {
        Ok(stream) => {
            let (_, connection) = stream.get_ref();
            let shown = connection.peer_certificates();
            let certificate = shown.and_then(<[_]>::first).map(|own| Fingerprint::of(own));
            Some(Shaken {
                stream,
                certificate,
            })
        }
        Err((error, stream)) => {
            // Everybody can cause it: no warning.
            debug!(%error, "a TLS handshake failed");
            // The client is told by an alert, which a reset would take away from it.
            hear_out(stream, linger).await;
            None
        }
    }
}

/// What a client of plain HTTP is told.
fn not_tls() -> Vec<u8> {
    let detail = "this port speaks TLS: use https://";
    let problem = Problem::of_http(StatusCode::BAD_REQUEST, "tls_required", detail);
    // A problem has no value that JSON lacks.
    let body = serde_json::to_string(&problem).unwrap_or_default();
    format!(
        "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: {PROBLEM_JSON}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Closes this side, and reads what still comes for a while: closing at once would reset the connection, and the peer
/// would lose what was sent to it.
async fn hear_out(mut stream: impl AsyncRead + AsyncWrite + Unpin, linger: Linger) {
    let heard = async {
        stream.shutdown().await?;
        let mut rest = stream.take(linger.bytes);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
        Ok::<_, io::Error>(())
    };
    // In either case the connection is closed next.
    let _ = timeout(linger.time, heard).await;
}
