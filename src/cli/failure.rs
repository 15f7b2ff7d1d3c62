//! Why a command did not succeed, and the exit code that says so.

use std::{error::Error, fmt, path::Path};

use thiserror::Error;

use crate::{
    cause::chain,
    ids::JobId,
    report::{Refusal, RefusalKind},
    round::Outcome,
    text::printable,
};

/// The most characters of a message.
const LONGEST: usize = 4000;

/// The exit codes, as `--help` shows them.
pub const EXIT_CODES: &str = "Exit codes:
  0    success; the job completed
  1    the job failed, or something else went wrong
  2    an argument, or a file or a device that one names, can't be used
  3    the coordinator refuses for another reason
  4    the coordinator can't be reached
  5    the job stopped before its last round, by a rule of its own (`stop`)
  130  the job was cancelled, or Ctrl-C ended the command
  141  the reader of standard output went away";

/// The coordinator's, which ends by a signal.
pub const COORDINATOR_EXIT_CODES: &str = "Exit codes:
  0    ended in order, by Ctrl-C or another signal; a command succeeded
  1    something went wrong, or is damaged
  2    an argument, or a file or folder that one names, can't be used
  130  a second signal ended it at once";

/// The worker's, which ends by a signal, too.
pub const WORKER_EXIT_CODES: &str = "Exit codes:
  0    ended in order, by Ctrl-C or another signal
  1    something went wrong
  2    an argument, or a file or a device that one names, can't be used
  3    the coordinator refuses the worker
  4    the coordinator can't be reached for longer than --patience
  130  a second signal ended it at once";

/// Why a command did not succeed. Each has one of the [`EXIT_CODES`].
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Failure {
    /// Arguments, a job file or a file named by an argument that can't be used.
    #[error("{0}")]
    Usage(String),
    /// The job ended, and not by completing.
    #[error("the job failed: {0}")]
    JobFailed(String),
    /// The job ended before its last round, by a rule of its own.
    #[error("the job stopped: {0}")]
    Stopped(String),
    /// The job was cancelled.
    #[error("the job was cancelled")]
    Cancelled,
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
    /// The coordinator understood and says no.
    #[error("{}", refused(.0))]
    Refused(Refusal),
    /// No answer from the coordinator.
    #[error("no answer from {coordinator}")]
    Unreachable {
        /// Its address.
        coordinator: String,
        /// What happened.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Another coordinator answers at the address of the one that was asked before.
    #[error(
        "the coordinator at {coordinator} is another one than before: its job {job} is not the job that was watched"
    )]
    OtherCoordinator {
        /// The address.
        coordinator: String,
        /// The job that was watched.
        job: JobId,
    },
    /// The reader of standard output went away.
    #[error("standard output is closed")]
    OutputClosed,
    /// Anything else.
    #[error("{what}")]
    Other {
        /// What was being done.
        what: String,
        /// What happened.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl Failure {
    /// What was being done, and what happened.
    pub fn because(
        what: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self::Other {
            what: what.into(),
            source: source.into(),
        }
    }

    /// An argument that can't be used, and why.
    pub fn unusable(what: impl fmt::Display, why: &(dyn Error + 'static)) -> Self {
        Self::Usage(format!("{what}: {}", in_full(why)))
    }

    /// A file named by an argument that can't be used, and why.
    pub fn of_file(file: &Path, why: impl fmt::Display) -> Self {
        Self::Usage(format!("{}: {why}", file.display()))
    }

    /// The exit code, as [`EXIT_CODES`] has it.
    pub fn code(&self) -> u8 {
        match self {
            Self::JobFailed(_) | Self::OtherCoordinator { .. } | Self::Other { .. } => 1,
            Self::Usage(_) => 2,
            Self::Stopped(_) => 5,
            // A job is made of arguments, whoever finds out that it can't be: this command, a simulation or a coordinator.
            Self::Refused(refusal) if refusal.kind == RefusalKind::InvalidJob => 2,
            Self::Refused(_) => 3,
            Self::Unreachable { .. } => 4,
            // As a shell reports a program that a signal ended: 128 and the signal's number.
            Self::Cancelled | Self::Interrupted => 130,
            Self::OutputClosed => 141,
        }
    }

    /// Success or failure, by how a job ended.
    ///
    /// # Errors
    ///
    /// If it did not complete.
    pub fn of_outcome(outcome: &Outcome) -> Result<(), Self> {
        match outcome {
            Outcome::Completed => Ok(()),
            Outcome::Stopped { reason, .. } => Err(Self::Stopped(reason.clone())),
            Outcome::Failed { reason } => Err(Self::JobFailed(reason.clone())),
            Outcome::Cancelled => Err(Self::Cancelled),
        }
    }
}

/// What a refusal says to the person who asked, and what to do about it.
fn refused(refusal: &Refusal) -> String {
    let detail = &refusal.detail;
    match refusal.kind {
        RefusalKind::UnknownJob => format!("{detail}; \"fedavg status\" lists them"),
        RefusalKind::InvalidJob => format!("the coordinator refuses the job: {detail}"),
        _ => format!("the coordinator refuses: {detail}"),
    }
}

/// An error with its causes, on one line. A cause that its effect has quoted already is not said again.
pub(super) fn in_full(error: &dyn Error) -> String {
    // Other machines' words can be in it, with line breaks and of any length.
    printable(&chain(error).replace('\n', " "), LONGEST).into_owned()
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn each_failure_has_a_documented_code() {
        let invalid = Refusal::new(RefusalKind::InvalidJob, "no such model");
        let refusal = Refusal::new(RefusalKind::UnknownJob, "no");
        let source = || io::Error::other("no route");
        let failures = [
            Failure::JobFailed("no".to_string()),
            Failure::Usage("no".to_string()),
            Failure::Refused(invalid),
            Failure::Refused(refusal),
            Failure::Unreachable {
                coordinator: "http://127.0.0.1:8000".to_string(),
                source: source().into(),
            },
            Failure::Cancelled,
            Failure::OutputClosed,
        ];
        let codes: Vec<_> = failures.iter().map(Failure::code).collect();
        assert_eq!(codes, [1, 2, 2, 3, 4, 130, 141]);
        for code in codes {
            let documented = |line: &str| line.trim_start().starts_with(&format!("{code} "));
            assert!(EXIT_CODES.lines().any(documented), "{code}");
        }
    }

    #[test]
    fn an_error_is_one_line_with_its_causes_said_once() {
        let failure = Failure::because(
            "can't write model.safetensors",
            io::Error::other("disk\nfull"),
        );
        assert_eq!(
            in_full(&failure),
            "can't write model.safetensors: disk full"
        );
        let quoted = Failure::because("can't write: full", io::Error::other("full"));
        assert_eq!(in_full(&quoted), "can't write: full");
    }
}
