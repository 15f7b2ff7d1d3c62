//! What a worker says about itself, and how patient it is.

use std::{path::PathBuf, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use thiserror::Error;

use super::{StateError, TaskLimits, failure::Failure};
use crate::{
    protocol::{Hardware, Token},
    report::Refusal,
    transport::TransportError,
};

/// How a worker behaves.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WorkerConfig {
    /// A name for people.
    pub name: String,
    /// How many clients it trains at once.
    pub slots: u32,
    /// The join token, if the coordinator asks for one.
    pub join_token: Option<Token>,
    /// What it trains with, for people.
    pub device: String,
    /// What it runs on.
    pub hardware: Hardware,
    /// Whether its data is its own: it then takes part in jobs with `local` data only, as one client.
    pub local: bool,
    /// The waits between tries when the coordinator can't be reached.
    pub backoff: Backoff,
    /// How long it goes on trying before it ends; none: forever.
    pub patience: Option<Duration>,
    /// How long it waits at its end for trainings to stop. They look at their flag in every batch, so that this is longer
    /// than a batch takes.
    pub stop_timeout: Duration,
    /// Where it keeps who it is and what it knows of its clients; none: in memory alone, so that a worker that is started again
    /// is a new one. Workers share a folder: below it there is one for each coordinator and name.
    pub state_dir: Option<PathBuf>,
    /// What it does in a task at most.
    pub limits: TaskLimits,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            name: "worker".to_string(),
            slots: 1,
            join_token: None,
            device: String::new(),
            hardware: Hardware::default(),
            local: false,
            backoff: Backoff::default(),
            patience: None,
            stop_timeout: Duration::from_secs(10),
            state_dir: None,
            limits: TaskLimits::default(),
        }
    }
}

impl WorkerConfig {
    /// A worker of this name, with defaults for all else. The public fields change that.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// Keeps the worker's state below this folder: one that is killed and started again is then the same worker, and its clients
    /// go on from what they had. See [`WorkerConfig::state_dir`].
    pub fn with_state_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.state_dir = Some(folder.into());
        self
    }
}

/// Waits that double from `first` to `longest`, each shortened by up to a half at random, so that many workers don't
/// come back at the same moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first wait.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
}

/// No try comes sooner than half of this after the one before, whatever is configured: a worker that asks without a pause
/// would load the coordinator that it waits for.
const LEAST_WAIT: Duration = Duration::from_millis(20);

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(200),
            longest: Duration::from_secs(15),
        }
    }
}

impl Backoff {
    /// The waits of one request: before its second try, its third and so on.
    pub(super) fn waits(&self) -> Waits {
        let longest = self.longest.max(LEAST_WAIT);
        let first = self.first.clamp(LEAST_WAIT, longest);
        // `backon` makes a wait longer, by up to as much again: from half of what is meant, that is at most the whole.
        let waits = ExponentialBuilder::new()
            .with_min_delay(first / 2)
            .with_max_delay(longest / 2)
            .without_max_times()
            .with_jitter()
            .build();
        Waits { waits, longest }
    }
}

/// The waits between the tries of one request.
pub(super) struct Waits {
    waits: ExponentialBackoff,
    longest: Duration,
}

impl Waits {
    pub fn next_wait(&mut self) -> Duration {
        self.waits.next().unwrap_or(self.longest)
    }
}

/// Why a worker ended.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// The coordinator does not take it.
    #[error("the coordinator refuses this worker: {0}")]
    Refused(Refusal),
    /// The coordinator can't be reached, for longer than the worker's patience.
    #[error("gave up after {seconds} s")]
    GaveUp {
        /// How long it tried.
        seconds: u64,
        /// What the last try said.
        source: TransportError,
    },
    /// What came is not this protocol.
    #[error(transparent)]
    Transport(TransportError),
    /// It can't keep its state in [`WorkerConfig::state_dir`].
    #[error(transparent)]
    State(#[from] StateError),
}

impl From<WorkerError> for Failure {
    fn from(error: WorkerError) -> Self {
        match error {
            WorkerError::Refused(refusal) => Self::Refused(refusal),
            other => Self::Unable(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_jitter_only_shortens_them() {
        let backoff = Backoff {
            first: Duration::from_millis(100),
            longest: Duration::from_secs(1),
        };
        let mut waits = backoff.waits();
        for milliseconds in [100, 200, 400, 800, 1000, 1000] {
            let most = Duration::from_millis(milliseconds);
            let wait = waits.next_wait();
            assert!(wait >= most / 2 && wait <= most, "{wait:?} of {most:?}");
        }
    }

    #[test]
    fn no_try_follows_at_once_whatever_is_configured() {
        let backoff = Backoff {
            first: Duration::ZERO,
            longest: Duration::ZERO,
        };
        let mut waits = backoff.waits();
        for _ in 0..100 {
            assert!(waits.next_wait() >= LEAST_WAIT / 2);
        }
    }
}
