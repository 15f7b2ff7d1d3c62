//! The coordinator's clock.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::ids::Timestamp;

/// Milliseconds since the Unix epoch that never go back, whatever happens to the system's clock.
pub(super) struct Clock {
    origin: u64,
    start: Instant,
    /// What a test adds, in milliseconds, as if the process had been stopped.
    #[cfg(test)]
    skipped: std::sync::atomic::AtomicU64,
}

impl Clock {
    /// A clock that begins at this moment, and not before `earliest`: an earlier process has counted up to there.
    pub fn start(earliest: Timestamp) -> Self {
        let origin = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            // A clock before 1970 counts as 1970: a wrong date is no reason not to start, since only differences
            // decide.
            .unwrap_or_default();
        Self {
            origin: (origin.as_millis() as u64).max(earliest.0),
            start: Instant::now(),
            #[cfg(test)]
            skipped: Default::default(),
        }
    }

    pub fn now(&self) -> Timestamp {
        let now = self.origin + self.start.elapsed().as_millis() as u64;
        #[cfg(test)]
        let now = now + self.skipped.load(std::sync::atomic::Ordering::Relaxed);
        Timestamp(now)
    }

    /// As if the process had been stopped for this long.
    #[cfg(test)]
    pub fn skip(&self, time: std::time::Duration) {
        let milliseconds = time.as_millis() as u64;
        self.skipped
            .fetch_add(milliseconds, std::sync::atomic::Ordering::Relaxed);
    }
}
