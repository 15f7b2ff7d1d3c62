//! Requests as bytes, from any address of this machine.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use tokio::{net::TcpSocket, runtime};

/// The longest that an attacker waits for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection from this address.
pub fn connect(from: [u8; 4], to: SocketAddr) -> io::Result<TcpStream> {
    connect_with(from, to, None)
}

/// The same, with room for so many bytes that have come and are not read: the less there is, the more the other side holds.
pub fn connect_with(from: [u8; 4], to: SocketAddr, room: Option<u32>) -> io::Result<TcpStream> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let stream = runtime.block_on(async {
        let socket = TcpSocket::new_v4()?;
        if let Some(room) = room {
            socket.set_recv_buffer_size(room)?;
        }
        socket.bind(SocketAddr::from((from, 0)))?;
        socket.connect(to).await
    });
    let stream = stream?.into_std()?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // Who reads nothing must not wait for a coordinator that reads nothing.
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// An answer, with its body as it came.
#[derive(Debug, Default)]
pub struct Answer {
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    fn of(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let Some(end) = end else {
            return Self::default();
        };
        Self {
            head: String::from_utf8_lossy(&bytes[..end]).into_owned(),
            body: bytes[end + 4..].to_vec(),
        }
    }

    /// 0: the connection ended without an answer.
    pub fn status(&self) -> u16 {
        let status = self.head.split(' ').nth(1);
        status.and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    /// Status and code of a problem.
    pub fn problem(&self) -> (u16, String) {
        let json: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let code = json["code"].as_str().unwrap_or_default();
        (self.status(), code.to_string())
    }
}

/// The answer to what was sent, until the other side closes.
pub fn answer_on(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    Answer::of(&bytes)
}

/// The answer to these bytes, until the other side closes.
pub fn answer(from: [u8; 4], to: SocketAddr, bytes: &[u8]) -> Answer {
    let mut stream = connect(from, to).unwrap();
    // Who is refused before its end may not get rid of the rest.
    let _ = stream.write_all(bytes);
    answer_on(&mut stream)
}

/// The head of a request, after whose answer the connection ends. Each header ends its line.
pub fn request(line: &str, headers: &str) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n").into_bytes()
}

/// A request with a body.
pub fn request_with(line: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = format!("{headers}content-length: {}\r\n", body.len());
    let mut bytes = request(line, &length);
    bytes.extend_from_slice(body);
    bytes
}

/// A request with a body whose length is not announced.
pub fn request_in_chunks(line: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = request(line, &format!("{headers}transfer-encoding: chunked\r\n"));
    for piece in body.chunks(64 << 10) {
        bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        bytes.extend_from_slice(piece);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

/// The headers of a request with JSON that shows this token.
pub fn json_headers(token: &str) -> String {
    format!("authorization: Bearer {token}\r\ncontent-type: application/json\r\n")
}

/// The headers of a job that comes with its initial model.
pub fn model_headers(token: &str) -> String {
    let job = r#"{"model":"mlp","dataset":"digits"}"#;
    format!(
        "authorization: Bearer {token}\r\ncontent-type: application/octet-stream\r\nfedavg-job: {job}\r\n"
    )
}

/// Whether the connection is open and nothing has come on it.
pub fn is_silent(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false).unwrap();
    matches!(peeked, Err(error) if error.kind() == ErrorKind::WouldBlock)
}
