//! How far a download is.

/// How far a download is, told as bytes arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes received.
    pub received: u64,
    /// Bytes in all, if the other side says so.
    pub total: Option<u64>,
}
