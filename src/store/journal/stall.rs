//! What keeps a journal from writing.

use std::time::Duration;

/// Nothing becomes durable for now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stall {
    /// For how long.
    pub lasts: Duration,
    /// Why, without the path: it is told to everybody.
    pub reason: String,
}

impl Stall {
    /// One of this length, for this reason.
    pub fn new(lasts: Duration, reason: impl Into<String>) -> Self {
        Self {
            lasts,
            reason: reason.into(),
        }
    }
}
