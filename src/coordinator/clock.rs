//! The coordinator's clock.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::ids::Timestamp;

/// Milliseconds since the Unix epoch that never go back, whatever happens to the system's clock.
pub(super) struct Clock {
    origin: u64,
    start: Instant,
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
        }
    }

    pub fn now(&self) -> Timestamp {
        Timestamp(self.origin + self.start.elapsed().as_millis() as u64)
    }
}
