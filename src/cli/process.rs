//! The process: its runtime, what Ctrl-C does to it, and how it ends.
//!
//! `exit` runs the destructors of C++ libraries (LibTorch has them). A thread that still computes then writes to memory
//! that is being freed. So what computes is told to stop and waited for; if a thread does not stop in time, the process
//! ends without destructors.

use std::{
    future::Future,
    io::{self, Write},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use signal_hook::low_level;
use tokio::sync::watch;

use super::{Failure, failure::in_full};

/// How long the end of the process waits for threads that were told to stop. Short, since workers, simulations and the
/// coordinator have waited for theirs before: what still computes then does not look at its flag.
const LAST_WAIT: Duration = Duration::from_secs(3);

/// A further signal so soon after the first is the same wish. `timeout` signals its child and then its process group;
/// a key that is held down repeats.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// Whether a thread did not stop in time.
static STILL_COMPUTES: AtomicBool = AtomicBool::new(false);

/// Runs a command on a tokio runtime of its own.
///
/// # Errors
///
/// The command's, or that no threads can be started.
pub fn block_on<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::because("can't start threads", error))?;
    let result = runtime.block_on(command);
    let told = Instant::now();
    runtime.shutdown_timeout(LAST_WAIT);
    // The runtime does not say whether its threads have ended; it only waits this long if they have not.
    if told.elapsed() >= LAST_WAIT {
        STILL_COMPUTES.store(true, Ordering::Relaxed);
    }
    result
}

/// Prints a failure to standard error, on one line with its causes, and gives the exit code.
pub fn exit(result: Result<(), Failure>) -> ExitCode {
    let mut code = 0;
    if let Err(failure) = result {
        code = failure.code();
        // A reader that has seen enough (`fedavg status | head -1`) is no error to tell.
        if !matches!(failure, Failure::OutputClosed) {
            // If standard error is closed, too, there is no way left to say it.
            let _ = writeln!(io::stderr(), "error: {}", in_full(&failure));
        }
    }
    if STILL_COMPUTES.load(Ordering::Relaxed) {
        end_at_once(code);
    }
    ExitCode::from(code)
}

/// Ends the process without destructors, which would race with the threads that compute.
fn end_at_once(code: u8) -> ! {
    // What can't be written is lost either way.
    let _ = io::stdout().flush();
    low_level::exit(code.into())
}

/// Ctrl-C, SIGTERM or SIGHUP (the terminal was closed): the first asks the command to end cleanly. One that comes more than
/// a second later ends the process at once, whatever still computes.
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
        // A task of its own, so that the second signal ends the process even if the command never asks.
        tokio::spawn(async move {
            signals.next().await;
            // After SIGHUP the terminal is gone, and this can't be read.
            let _ = writeln!(io::stderr(), "ending; Ctrl-C again ends at once");
            interrupted.send_replace(true);
            let first = Instant::now();
            loop {
                signals.next().await;
                if first.elapsed() > SAME_SIGNAL {
                    end_at_once(Failure::Interrupted.code());
                }
            }
        });
        Ok(Self(receiver))
    }

    /// Waits for the first signal.
    pub async fn wait(mut self) {
        if self.0.wait_for(|interrupted| *interrupted).await.is_err() {
            // The task that listens has ended: no signal will come.
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
