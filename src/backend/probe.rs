//! Asking a device what it can do: its answer may be a panic, which is then expected.

use std::cell::Cell;

use crate::panics;

thread_local! {
    static IS_EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// Runs what asks a device; a panic is its message as an error. Meanwhile [`is_expected`] says so to the program's panic
/// hook.
pub(super) fn quietly<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    // Restored below, not cleared: one probe may be a part of another.
    let was_expected = IS_EXPECTED.replace(true);
    let result = panics::caught(work);
    IS_EXPECTED.set(was_expected);
    result
}

/// Whether a panic of this thread would be an expected answer, of which nothing need be printed.
pub(super) fn is_expected() -> bool {
    IS_EXPECTED.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_expected_within_a_probe_alone() {
        let probed = quietly(|| -> u8 {
            assert_eq!(quietly(|| 1), Ok(1));
            assert!(is_expected());
            panic!("no device")
        });
        assert_eq!(probed, Err("no device".to_string()));
        assert!(!is_expected());
    }
}
