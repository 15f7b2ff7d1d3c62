//! Bugs on purpose, to show that the property tests would catch them. Outside of tests there are none: [`planted`] is
//! a constant `false` there, and the compiler drops what hangs on it.

/// A bug that a test can switch on, for its own thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bug {
    /// A round commits at its deadline with any report at all.
    QuorumIgnored,
    /// An upload that ends after the round has closed is called accepted.
    LateAccepted,
    /// A report that starts from another version is admitted.
    StaleAdmitted,
    /// A round commits whatever the strategy says of its aggregation.
    ExclusionIgnored,
    /// A commit moves the basis of the clients that it excluded, too.
    BasisOfExcluded,
}

#[cfg(test)]
thread_local! {
    pub(super) static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Whether this bug is switched on.
#[cfg(test)]
pub(super) fn planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Whether this bug is switched on: never.
#[cfg(not(test))]
pub(super) const fn planted(_bug: Bug) -> bool {
    false
}
