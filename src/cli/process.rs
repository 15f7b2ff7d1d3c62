//! The process: its runtime, and what Ctrl-C does to it.

use std::{
    future::Future,
    io::{self, Write},
    time::Duration,
};

use tokio::sync::watch;

use super::Failure;

/// How long the end of the process waits for work on blocking threads that was told to stop.
const LAST_WAIT: Duration = Duration::from_secs(3);

/// Runs a command on a tokio runtime of its own.
///
/// # Errors
///
/// The command's, or that there are no threads to be had.
pub fn block_on<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::because("can't start threads", error))?;
    let result = runtime.block_on(command);
    runtime.shutdown_timeout(LAST_WAIT);
    result
}

/// Ctrl-C, SIGTERM or SIGHUP (the terminal was closed): the first asks the command to end cleanly, the second ends the process at once.
#[derive(Debug, Clone)]
pub struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    /// From here on, the first signal is this value's. Must be called on a tokio runtime.
    ///
    /// # Errors
    ///
    /// If the operating system has no signals to give.
    pub fn listen() -> Result<Self, Failure> {
        let mut signals =
            Signals::new().map_err(|error| Failure::because("can't listen for Ctrl-C", error))?;
        let (interrupted, receiver) = watch::channel(false);
        tokio::spawn(async move {
            signals.next().await;
            let _ = writeln!(io::stderr(), "ending; Ctrl-C again ends at once");
            interrupted.send_replace(true);
            signals.next().await;
            std::process::exit(i32::from(Failure::Interrupted.code()));
        });
        Ok(Self(receiver))
    }

    /// Waits for the first signal.
    pub async fn wait(mut self) {
        if self.0.wait_for(|interrupted| *interrupted).await.is_err() {
            // Nobody can send any more: there is no signal to come.
            std::future::pending().await
        }
    }

    /// Whether there was one.
    pub fn is_set(&self) -> bool {
        *self.0.borrow()
    }
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }
}
