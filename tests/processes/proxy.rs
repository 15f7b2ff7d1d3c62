//! A network that breaks: passes connections on to a coordinator, and cuts them when told to.

use std::{
    io,
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// Passes connections on.
pub struct Proxy {
    pub url: String,
    connections: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    /// In front of the coordinator at `http://ADDRESS`.
    pub fn start(url: &str) -> Self {
        let target = url.trim_start_matches("http://").to_string();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let connections = Arc::new(Mutex::new(Vec::new()));
        let kept = connections.clone();
        thread::spawn(move || {
            for near in listener.incoming() {
                let (Ok(near), Ok(far)) = (near, TcpStream::connect(&target)) else {
                    continue;
                };
                for (mut from, mut to) in [(&near, &far), (&far, &near)]
                    .map(|(from, to)| (from.try_clone().unwrap(), to.try_clone().unwrap()))
                {
                    thread::spawn(move || {
                        // An error is a connection that was cut, as is an end.
                        let _ = io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Write);
                    });
                }
                kept.lock().unwrap().extend([near, far]);
            }
        });
        Self { url, connections }
    }

    /// Cuts the connections that there are; new ones are passed on.
    pub fn cut(&self) {
        for connection in self.connections.lock().unwrap().drain(..) {
            // An error means that it has ended already.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}
