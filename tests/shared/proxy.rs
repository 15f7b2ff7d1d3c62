//! A network that breaks: passes connections on to a coordinator, slowly if told to, and cuts them when told to.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// What a slow link passes on at once.
const PIECE: usize = 4096;

/// Passes connections on.
pub struct Proxy {
    pub url: String,
    connections: Arc<Mutex<Vec<TcpStream>>>,
    is_down: Arc<AtomicBool>,
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
        let connections = Arc::new(Mutex::new(Vec::new()));
        let is_down = Arc::new(AtomicBool::new(false));
        let (kept, ends_all) = (connections.clone(), is_down.clone());
        thread::spawn(move || {
            for near in listener.incoming() {
                if ends_all.load(Ordering::SeqCst) {
                    continue;
                }
                let (Ok(near), Ok(far)) = (near, TcpStream::connect(&target)) else {
                    continue;
                };
                for (mut from, mut to) in [(&near, &far), (&far, &near)]
                    .map(|(from, to)| (from.try_clone().unwrap(), to.try_clone().unwrap()))
                {
                    thread::spawn(move || {
                        // An error is a connection that was cut, as is an end.
                        let _ = pass_on(&mut from, &mut to, pause);
                        let _ = to.shutdown(Shutdown::Write);
                    });
                }
                kept.lock().unwrap().extend([near, far]);
            }
        });
        Self {
            url,
            connections,
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
        for connection in self.connections.lock().unwrap().drain(..) {
            // An error means that it has ended already.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

fn pass_on(from: &mut TcpStream, to: &mut TcpStream, pause: Duration) -> io::Result<()> {
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
