//! A part of a list, and how to go on.

/// Some entries of a list, in order.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Page<T, N> {
    /// The entries; there can be fewer than were asked for.
    pub entries: Vec<T>,
    /// What the next page comes after; none if this is the last.
    pub next: Option<N>,
}

impl<T, N> Page<T, N> {
    /// These entries, and what the next page comes after.
    pub fn new(entries: Vec<T>, next: Option<N>) -> Self {
        Self { entries, next }
    }
}
