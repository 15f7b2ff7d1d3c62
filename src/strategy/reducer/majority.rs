//! How many attackers a rule tolerates that holds as long as they are fewer than half.

/// The most attackers that are fewer than half of this many clients: none of one or two.
pub(super) fn faults(cohort: usize) -> usize {
    cohort.saturating_sub(1) / 2
}
