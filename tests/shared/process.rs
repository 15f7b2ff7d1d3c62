//! A child process whose lines are waited for, and which doesn't outlive its test.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
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
    /// Reads them from now on, and copies them into a file if there is one.
    fn read(stream: impl Read + Send + 'static, mut copy: Option<File>) -> Self {
        let (sender, receiver) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                if let Some(copy) = &mut copy {
                    writeln!(copy, "{line}").unwrap();
                }
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

    /// Passes over what has come so far.
    pub fn skip(&mut self) {
        self.seen.extend(self.receiver.try_iter());
    }

    /// The first line to come within this time that has one of these in it.
    pub fn within(&mut self, time: Duration, parts: &[&str]) -> Option<String> {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.receiver.recv_timeout(left).ok()?;
            self.seen.push(line.clone());
            if parts.iter().any(|part| line.contains(part)) {
                return Some(line);
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
        Self::start_with(command, [None, None])
    }

    /// Starts it, and copies its lines into `NAME.out` and `NAME.err` in a folder.
    pub fn start_logged(command: &mut Command, folder: &Path, name: &str) -> Self {
        let copies = ["out", "err"].map(|stream| {
            let file = File::create(folder.join(format!("{name}.{stream}")));
            Some(file.unwrap())
        });
        Self::start_with(command, copies)
    }

    fn start_with(command: &mut Command, [out_copy, err_copy]: [Option<File>; 2]) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = Lines::read(child.stdout.take().unwrap(), out_copy);
        let err = Lines::read(child.stderr.take().unwrap(), err_copy);
        Self { child, out, err }
    }

    /// Waits for the end.
    pub fn finish(mut self) -> Finished {
        self.remains()
    }

    /// Waits for the end of a process that is replaced by another one.
    pub fn remains(&mut self) -> Finished {
        let (out, err) = (self.out.all(), self.err.all());
        // Its streams are closed: it has ended, or is about to.
        let code = self.child.wait().unwrap().code();
        Finished { code, out, err }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What Ctrl-C does.
    pub fn interrupt(&self) {
        self.signal("-INT");
    }

    /// What closing the terminal does.
    pub fn hang_up(&self) {
        self.signal("-HUP");
    }

    /// Sends a signal, such as `-STOP`.
    pub fn signal(&self, signal: &str) {
        let mut kill = Command::new("kill");
        let kill = kill.args([signal, &self.child.id().to_string()]);
        assert!(kill.status().unwrap().success());
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// SIGKILL.
    pub fn signal_kill(&mut self) {
        self.child.kill().unwrap();
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
