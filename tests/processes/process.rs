//! A child process whose lines are waited for, and which doesn't outlive its test.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

/// The longest that a test waits for anything.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The lines of one of a process's streams.
pub struct Lines {
    receiver: Receiver<String>,
    seen: Vec<String>,
}

impl Lines {
    fn read(stream: impl Read + Send + 'static) -> Self {
        let (sender, receiver) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self {
            receiver,
            seen: Vec::new(),
        }
    }

    /// The next line; `None` at the end.
    pub fn next(&mut self) -> Option<String> {
        match self.receiver.recv_timeout(LIMIT) {
            Ok(line) => {
                self.seen.push(line.clone());
                Some(line)
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                panic!("no line within {LIMIT:?} after {:#?}", self.seen)
            }
        }
    }

    /// The first line to come that has this in it.
    pub fn until(&mut self, part: &str) -> String {
        let start = Instant::now();
        while let Some(line) = self.next() {
            if line.contains(part) {
                return line;
            }
            assert!(
                start.elapsed() < LIMIT,
                "no {part:?} within {LIMIT:?} in {:#?}",
                self.seen
            );
        }
        panic!("no {part:?} in {:#?}", self.seen);
    }

    /// All lines, those that were waited for included, up to the stream's end.
    fn all(&mut self) -> String {
        let start = Instant::now();
        while self.next().is_some() {
            assert!(
                start.elapsed() < LIMIT,
                "no end within {LIMIT:?} of {:#?}",
                self.seen
            );
        }
        self.seen.join("\n")
    }
}

/// A child process.
pub struct Process {
    child: Child,
    pub out: Lines,
    pub err: Lines,
}

/// What a process left behind.
#[derive(Debug)]
pub struct Finished {
    /// None: ended by a signal.
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Process {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = Lines::read(child.stdout.take().unwrap());
        let err = Lines::read(child.stderr.take().unwrap());
        Self { child, out, err }
    }

    /// Waits for the end.
    pub fn finish(mut self) -> Finished {
        let (out, err) = (self.out.all(), self.err.all());
        // Its streams are closed: it has ended, or is about to.
        let code = self.child.wait().unwrap().code();
        Finished { code, out, err }
    }

    /// What Ctrl-C does.
    pub fn interrupt(&self) {
        self.signal("-INT");
    }

    /// What closing the terminal does.
    pub fn hang_up(&self) {
        self.signal("-HUP");
    }

    fn signal(&self, signal: &str) {
        let mut kill = Command::new("kill");
        let kill = kill.args([signal, &self.child.id().to_string()]);
        assert!(kill.status().unwrap().success());
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
