//! What the same bytes cost without a coordinator: some connections over loopback, each with a model down and a report up,
//! in plain TCP and by rustls alone: as it is, with 4 KiB a read, and with reads as large as the coordinator's.

use std::{
    io::{self, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};

const PIECE: usize = 256 << 10;

/// Bytes of a read below TLS, as in `transport/http/tls/read_ahead.rs`.
const AHEAD: usize = 64 << 10;

/// Both ends' configurations.
#[derive(Clone)]
pub struct Tls {
    /// Whether reads are as large as the coordinator's.
    reads_ahead: bool,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Tls {
    pub fn new() -> Self {
        let pem = fedavg::transport::http::Identity::self_signed_pem(&["localhost".to_string()]);
        let pem = pem.expect("a certificate");
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).expect("a key");
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).expect("a certificate");
        let provider = Arc::new(ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("a certificate");
        Self {
            reads_ahead: false,
            client: Arc::new(client),
            server: Arc::new(server),
        }
    }
}

impl Tls {
    pub fn reading_ahead(&self) -> Self {
        Self {
            reads_ahead: true,
            ..self.clone()
        }
    }
}

/// A connection whose reads are large.
struct Ahead(BufReader<TcpStream>);

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Ahead {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.get_mut().write(bytes)
    }

    fn write_vectored(&mut self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.get_mut().write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.get_mut().flush()
    }
}

/// How long it takes until each connection has moved this many bytes down and then as many up, at the same time.
pub fn both_ways(connections: usize, bytes: usize, tls: Option<&Tls>) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let ready = Arc::new(Barrier::new(2 * connections + 1));
    let mut threads = Vec::new();
    for _ in 0..connections {
        let client = TcpStream::connect(address).expect("a connection");
        let (server, _) = listener.accept().expect("a connection");
        for stream in [&client, &server] {
            stream.set_nodelay(true).expect("an open connection");
        }
        let (client, server) = match tls {
            Some(tls) => {
                let name = ServerName::try_from("localhost").expect("a name");
                let one = ClientConnection::new(tls.client.clone(), name).expect("a client");
                let other = ServerConnection::new(tls.server.clone()).expect("a server");
                // More than the capacity is read past the buffer.
                let capacity = if tls.reads_ahead { AHEAD } else { 1 };
                let client = Ahead(BufReader::with_capacity(capacity, client));
                let server = Ahead(BufReader::with_capacity(capacity, server));
                let client = Box::new(StreamOwned::new(one, client)) as Box<dyn Stream>;
                (
                    client,
                    Box::new(StreamOwned::new(other, server)) as Box<dyn Stream>,
                )
            }
            None => {
                let client = Box::new(client) as Box<dyn Stream>;
                (client, Box::new(server) as Box<dyn Stream>)
            }
        };
        for (mut stream, is_server) in [(client, false), (server, true)] {
            let ready = ready.clone();
            threads.push(thread::spawn(move || {
                // The handshake.
                exchange(&mut *stream, 1, is_server).expect("an open connection");
                ready.wait();
                exchange(&mut *stream, bytes, is_server).expect("an open connection");
            }));
        }
    }
    ready.wait();
    let start = Instant::now();
    for thread in threads {
        thread.join().expect("no panic");
    }
    start.elapsed()
}

trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

fn exchange(stream: &mut dyn Stream, bytes: usize, is_server: bool) -> io::Result<()> {
    if is_server {
        send(stream, bytes)?;
        receive(stream, bytes)
    } else {
        receive(stream, bytes)?;
        send(stream, bytes)
    }
}

fn send(stream: &mut dyn Stream, bytes: usize) -> io::Result<()> {
    let piece = vec![1; PIECE];
    let mut left = bytes;
    while left > 0 {
        let count = left.min(piece.len());
        stream.write_all(&piece[..count])?;
        left -= count;
    }
    stream.flush()
}

fn receive(stream: &mut dyn Stream, bytes: usize) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    let mut left = bytes;
    while left > 0 {
        let most = left.min(piece.len());
        match stream.read(&mut piece[..most])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => left -= count,
        }
    }
    Ok(())
}
