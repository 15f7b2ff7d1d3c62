//! What a worker says about itself, and how patient it is.

use std::time::Duration;

use thiserror::Error;

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
    /// What it shows to register.
    pub join_token: Option<Token>,
    /// What it trains with, for people.
    pub device: String,
    /// What it runs on.
    pub hardware: Hardware,
    /// Whether its data is its own: it then takes part in jobs with `local` data only, as one client.
    pub local: bool,
    /// The waits between tries when the coordinator can't be reached.
    pub backoff: Backoff,
    /// How long it goes on trying before it ends; none: for ever.
    pub patience: Option<Duration>,
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
}

/// Waits that double from `first` to `longest`, each shortened by up to a half at random, so that many workers don't
/// come back in step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first wait.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
}

/// No try comes sooner after the one before, whatever is configured, but for half of it in jitter.
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
    /// The wait before try number `tries` (from 1), with `jitter` between 0 and 1.
    pub fn wait(&self, tries: u32, jitter: f64) -> Duration {
        let doubled = self
            .first
            .max(LEAST_WAIT)
            .saturating_mul(2u32.saturating_pow(tries.saturating_sub(1).min(30)));
        doubled
            .min(self.longest.max(LEAST_WAIT))
            .mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
    }

    /// The same, with jitter from the operating system.
    pub(super) fn random_wait(&self, tries: u32) -> Duration {
        let jitter = getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX));
        self.wait(tries, jitter)
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
        let waits: Vec<_> = (1..7)
            .map(|tries| backoff.wait(tries, 0.0).as_millis())
            .collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff.wait(2, 1.0), Duration::from_millis(100));
        assert_eq!(backoff.wait(u32::MAX, 0.0), Duration::from_secs(1));
    }
}
