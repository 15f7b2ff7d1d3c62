//! Standard output and standard error, shared by progress bars, log lines and results without tearing each other.

#[cfg(unix)]
use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget};
use serde::Serialize;
use tracing_subscriber::fmt::MakeWriter;

use super::Failure;
use crate::text::printable;

/// What a command writes to. Clones write to the same.
#[derive(Debug, Clone)]
pub struct Screen {
    bars: MultiProgress,
    is_terminal: bool,
}

impl Screen {
    /// This process's.
    pub fn new() -> Self {
        let is_terminal = io::stderr().is_terminal();
        let target = if is_terminal {
            ProgressDrawTarget::stderr()
        } else {
            // A file or a pipe would be filled with redrawn bars.
            ProgressDrawTarget::hidden()
        };
        Self {
            bars: MultiProgress::with_draw_target(target),
            is_terminal,
        }
    }

    /// Whether standard error is a terminal, so that progress is a bar there; else it is lines.
    pub fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// A bar of progress, drawn on a terminal only.
    pub fn bar(&self, length: u64) -> ProgressBar {
        self.bars.add(ProgressBar::new(length))
    }

    /// A line of progress, to standard error, without control characters: names and paths in it can come from a job file
    /// that somebody else wrote.
    pub fn note(&self, line: &str) {
        let line = printable(line, usize::MAX);
        self.bars.suspend(|| {
            // Progress that nobody can see is no reason to fail.
            let _ = writeln!(io::stderr().lock(), "{line}");
        });
    }

    /// Warnings, a line each, as [`Screen::note`] writes them.
    pub fn warn(&self, warnings: &[String]) {
        for warning in warnings {
            self.note(&format!("warning: {warning}"));
        }
    }

    /// A line or more of the command's result, to standard output.
    ///
    /// # Errors
    ///
    /// [`Failure::OutputClosed`] if nobody reads it any more.
    pub fn print(&self, text: &str) -> Result<(), Failure> {
        // The bar is on standard error, but on a terminal both are on the same lines.
        let written = self.bars.suspend(|| {
            let mut output = io::stdout().lock();
            // Tables end with a line break of their own.
            writeln!(output, "{}", text.trim_end_matches('\n'))?;
            output.flush()
        });
        written.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::because("can't write to standard output", error),
        })
    }

    /// Refuses a standard output that keeps nothing, for what can't be shown again: `/dev/null`, which a closed one is, too, since
    /// Rust opens it in its place.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`].
    #[cfg(unix)]
    pub(super) fn check_output(&self) -> Result<(), Failure> {
        use std::os::{fd::AsFd, unix::fs::MetadataExt};

        let output = io::stdout().as_fd().try_clone_to_owned().map(File::from);
        let found = output.and_then(|output| output.metadata());
        let null = fs::metadata("/dev/null");
        let (Ok(found), Ok(null)) = (found, null) else {
            return Ok(());
        };
        if found.rdev() == null.rdev() && found.file_type() == null.file_type() {
            return Err(Failure::Usage(
                "standard output is closed or /dev/null, where the token would be lost: write it to a file with --output FILE"
                    .to_string(),
            ));
        }
        Ok(())
    }

    /// A result for machines: JSON on a line of its own.
    ///
    /// # Errors
    ///
    /// As [`Screen::print`].
    pub fn print_json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value)
            .map_err(|error| Failure::because("can't write JSON", error))?;
        self.print(&text)
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}

/// Log lines go to standard error, above any bar.
impl<'a> MakeWriter<'a> for Screen {
    type Writer = LogWriter<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        LogWriter(self)
    }
}

/// Writes log lines.
#[derive(Debug)]
pub struct LogWriter<'a>(&'a Screen);

impl Write for LogWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A line that can't be written is lost. An error would be told on standard error, too, and by a panic.
        self.0.bars.suspend(|| {
            let _ = io::stderr().lock().write_all(bytes);
        });
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = io::stderr().flush();
        Ok(())
    }
}
