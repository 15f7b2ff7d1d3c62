//! A network that breaks: passes connections on to a coordinator, slowly if told to, and stops or cuts them when told to.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use super::process::LIMIT;

/// What a link passes on at once.
const PIECE: usize = 4096;

/// Passes connections on.
pub struct Proxy {
    pub url: String,
    connections: Arc<Mutex<Vec<Connection>>>,
    up: Arc<Up>,
    held: Receiver<()>,
    is_down: Arc<AtomicBool>,
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
    /// What each piece takes.
    pause: Duration,
}

impl Proxy {
    /// In front of the coordinator at `http://ADDRESS`.
    pub fn start(url: &str) -> Self {
        Self::slow(url, Duration::ZERO)
    }

    /// In front of the coordinator at `http://ADDRESS`, by a link on which each piece takes this long.
    pub fn slow(url: &str, pause: Duration) -> Self {
        let target = url.trim_start_matches("http://").to_string();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, held) = channel();
        let up = Arc::new(Up {
            sent: Mutex::default(),
            hold_after: Mutex::default(),
            held: sender,
            pause,
        });
        let connections = Arc::new(Mutex::new(Vec::new()));
        let is_down = Arc::new(AtomicBool::new(false));
        let (kept, passed, ends_all) = (connections.clone(), up.clone(), is_down.clone());
        thread::spawn(move || {
            for near in listener.incoming() {
                if ends_all.load(Ordering::SeqCst) {
                    continue;
                }
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
            is_down,
        }
    }

    /// Cuts the connections that there are, and those that come until [`Proxy::mend`].
    pub fn take_down(&self) {
        self.is_down.store(true, Ordering::SeqCst);
        self.cut();
    }

    /// Passes new connections on again.
    pub fn mend(&self) {
        self.is_down.store(false, Ordering::SeqCst);
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
    let pause = up.pause;
    thread::spawn(move || {
        // An error is a connection that was cut, as is an end.
        let _ = pass_down(&mut from, &mut to, pause);
        let _ = to.shutdown(Shutdown::Write);
    });
    let (from, to) = clones();
    thread::spawn(move || up.pass_on(from, to));
}

fn pass_down(from: &mut TcpStream, to: &mut TcpStream, pause: Duration) -> io::Result<()> {
    let mut piece = [0; PIECE];
    loop {
        let length = from.read(&mut piece)?;
        if length == 0 {
            return Ok(());
        }
        // The link is what is slow here: nothing waits for this to pass.
        thread::sleep(pause);
        to.write_all(&piece[..length])?;
    }
}

impl Up {
    fn pass_on(&self, mut from: TcpStream, mut to: TcpStream) {
        let index = {
            let mut sent = self.sent.lock().unwrap();
            sent.push(Vec::new());
            sent.len() - 1
        };
        let mut buffer = [0; PIECE];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let piece = &buffer[..count];
            thread::sleep(self.pause);
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
