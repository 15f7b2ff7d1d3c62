//! Token buckets: so much a second, and some of it at once. The time is an argument.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How fast a bucket fills, and how much it holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    /// 0: no limit.
    per_second: f64,
    burst: f64,
}

impl Rate {
    /// So many a second, and what comes in so many seconds at once.
    pub(super) fn new(per_second: u64, burst_seconds: f64) -> Self {
        let per_second = per_second as f64;
        Self {
            per_second,
            burst: (per_second * burst_seconds).max(1.0),
        }
    }
}

/// A bucket; a new one is full. Times are since any fixed moment.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// What is missing from a full bucket.
    missing: f64,
    /// When that was so.
    at: Duration,
}

impl Bucket {
    /// Takes so much, or says how long it takes until there is as much.
    pub(super) fn take(&mut self, amount: f64, rate: Rate, now: Duration) -> Result<(), Duration> {
        if rate.per_second == 0.0 {
            return Ok(());
        }
        self.fill(rate, now);
        let lacking = self.missing + amount - rate.burst;
        if lacking > 0.0 {
            return Err(Duration::from_secs_f64(lacking / rate.per_second));
        }
        self.missing += amount;
        Ok(())
    }

    /// Takes so much in any case. Returns how long to wait until nothing is owed.
    pub(super) fn spend(&mut self, amount: f64, rate: Rate, now: Duration) -> Duration {
        if rate.per_second == 0.0 {
            return Duration::ZERO;
        }
        self.fill(rate, now);
        self.missing += amount;
        let owed = (self.missing - rate.burst).max(0.0);
        Duration::from_secs_f64(owed / rate.per_second)
    }

    /// Whether it can be forgotten: a new one would be the same.
    pub(super) fn is_full(&self, rate: Rate, now: Duration) -> bool {
        let filled = now.saturating_sub(self.at).as_secs_f64() * rate.per_second;
        self.missing <= filled
    }

    fn fill(&mut self, rate: Rate, now: Duration) {
        let filled = now.saturating_sub(self.at).as_secs_f64() * rate.per_second;
        self.missing = (self.missing - filled).max(0.0);
        self.at = self.at.max(now);
    }
}

/// The bytes that come from an address, over all its connections.
#[derive(Debug)]
pub(in crate::transport::http) struct Received {
    rate: Rate,
    start: Instant,
    bucket: Mutex<Bucket>,
}

impl Received {
    /// A burst is what comes in a second.
    pub(super) fn new(bytes_per_second: u64, start: Instant) -> Self {
        Self {
            rate: Rate::new(bytes_per_second, 1.0),
            start,
            bucket: Mutex::default(),
        }
    }

    /// Notes bytes that came. Returns how long to wait before the next ones are read.
    pub(in crate::transport::http) fn note(&self, bytes: usize) -> Duration {
        let now = self.start.elapsed();
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.spend(bytes as f64, self.rate, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_burst_passes_then_the_rate_alone() {
        let rate = Rate::new(10, 2.0);
        let mut bucket = Bucket::default();
        for _ in 0..20 {
            bucket.take(1.0, rate, at(5000)).unwrap();
        }
        let wait = bucket.take(1.0, rate, at(5000)).unwrap_err();
        assert!((wait.as_secs_f64() - 0.1).abs() < 1e-6, "{wait:?}");
        let mut passed = 0;
        for tick in 0..1000 {
            let now = at(5000 + 10 * tick);
            passed += usize::from(bucket.take(1.0, rate, now).is_ok());
        }
        assert!((99..=101).contains(&passed), "{passed}");
        // A clock that goes back gives nothing.
        assert!(bucket.take(2.0, rate, at(0)).is_err());
        assert!(!bucket.is_full(rate, at(15_000)));
        assert!(bucket.is_full(rate, at(60_000)));
    }

    #[test]
    fn what_is_spent_beyond_the_burst_must_be_waited_for() {
        let rate = Rate::new(1000, 1.0);
        let mut bucket = Bucket::default();
        assert_eq!(bucket.spend(1000.0, rate, at(0)), Duration::ZERO);
        let wait = bucket.spend(500.0, rate, at(0));
        assert!((wait.as_secs_f64() - 0.5).abs() < 1e-6, "{wait:?}");
        assert_eq!(bucket.spend(0.0, rate, at(500)), Duration::ZERO);
        let none = Rate::new(0, 1.0);
        assert_eq!(bucket.spend(1e9, none, at(500)), Duration::ZERO);
        assert!(bucket.take(1e9, none, at(500)).is_ok());
    }
}
