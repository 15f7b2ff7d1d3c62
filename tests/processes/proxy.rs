//! A network that breaks: passes connections on to a coordinator, and stops or cuts them when told to.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use super::process::LIMIT;

/// Passes connections on.
pub struct Proxy {
    pub url: String,
    connections: Arc<Mutex<Vec<Connection>>>,
    up: Arc<Up>,
    held: Receiver<()>,
}

/// Both ends of a connection.
struct Connection {
    near: TcpStream,
    far: TcpStream,
}

/// What goes to the coordinator.
struct Up {
    /// The bytes of each connection.
    sent: Mutex<Vec<Vec<u8>>>,
    /// How many bytes of a connection are passed on before it is held, if one is to be.
    hold_after: Mutex<Option<usize>>,
    held: Sender<()>,
}

impl Proxy {
    /// In front of the coordinator at `http://ADDRESS`.
    pub fn start(url: &str) -> Self {
        let target = url.trim_start_matches("http://").to_string();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, held) = channel();
        let up = Arc::new(Up {
            sent: Mutex::default(),
            hold_after: Mutex::default(),
            held: sender,
        });
        let connections = Arc::new(Mutex::new(Vec::new()));
        let (kept, passed) = (connections.clone(), up.clone());
        thread::spawn(move || {
            for near in listener.incoming() {
                let (Ok(near), Ok(far)) = (near, TcpStream::connect(&target)) else {
                    continue;
                };
                pass_on(&near, &far, passed.clone());
                kept.lock().unwrap().push(Connection { near, far });
            }
        });
        Self {
            url,
            connections,
            up,
            held,
        }
    }

    /// Cuts the connections that there are; new ones are passed on.
    pub fn cut(&self) {
        for Connection { near, far } in self.connections.lock().unwrap().drain(..) {
            // An error means that it has ended already.
            let _ = near.shutdown(Shutdown::Both);
            let _ = far.shutdown(Shutdown::Both);
        }
    }

    /// The same for the near ends alone: the coordinator takes the connections for open ones.
    pub fn cut_near_ends(&self) {
        for Connection { near, .. } in self.connections.lock().unwrap().iter() {
            let _ = near.shutdown(Shutdown::Both);
        }
    }

    /// The next connection over which more than this many bytes go to the coordinator passes no more on, and stays open.
    pub fn hold_after(&self, bytes: usize) {
        *self.up.hold_after.lock().unwrap() = Some(bytes);
    }

    /// Waits until a connection is held.
    pub fn wait_until_held(&self) {
        let held = self.held.recv_timeout(LIMIT);
        held.expect("a connection that is held");
    }

    /// What has been passed on to the coordinator, connection by connection.
    pub fn sent(&self) -> Vec<Vec<u8>> {
        self.up.sent.lock().unwrap().clone()
    }
}

fn pass_on(near: &TcpStream, far: &TcpStream, up: Arc<Up>) {
    let clones = || (near.try_clone().unwrap(), far.try_clone().unwrap());
    let (mut to, mut from) = clones();
    thread::spawn(move || {
        // An error is a connection that was cut, as is an end.
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let (from, to) = clones();
    thread::spawn(move || up.pass_on(from, to));
}

impl Up {
    fn pass_on(&self, mut from: TcpStream, mut to: TcpStream) {
        let index = {
            let mut sent = self.sent.lock().unwrap();
            sent.push(Vec::new());
            sent.len() - 1
        };
        let mut buffer = [0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let piece = &buffer[..count];
            if to.write_all(piece).is_err() {
                break;
            }
            let passed = {
                let mut sent = self.sent.lock().unwrap();
                sent[index].extend_from_slice(piece);
                sent[index].len()
            };
            let mut hold_after = self.hold_after.lock().unwrap();
            if hold_after.is_some_and(|bytes| passed > bytes) {
                *hold_after = None;
                drop(hold_after);
                let _ = self.held.send(());
                // Neither end learns of it.
                return;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    }
}
