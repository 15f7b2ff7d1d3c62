//! Catches the panics of foreign code: strategies and trainers are an embedder's own, and burn panics on shapes.

#[cfg(feature = "burn")]
use std::cell::Cell;
use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

#[cfg(feature = "burn")]
thread_local! {
    static IS_EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`; a panic is its message as an error.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    // Whoever calls this gives up what a panic may have left half changed: the trainer, the fold's output.
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| message(&*panic))
}

/// The same, if a panic of this thread is an expected answer: [`is_expected`] then says so to the program's panic hook.
#[cfg(feature = "burn")]
pub(crate) fn quietly<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    // Restored below, not cleared: one probe may be a part of another.
    let was_expected = IS_EXPECTED.replace(true);
    let result = caught(work);
    IS_EXPECTED.set(was_expected);
    result
}

/// Whether a panic of this thread would be an expected answer, of which nothing need be printed.
#[cfg(feature = "burn")]
pub(crate) fn is_expected() -> bool {
    IS_EXPECTED.get()
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_string())
}

#[cfg(all(test, feature = "burn"))]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_message() {
        assert_eq!(caught(|| 1), Ok(1));
        assert_eq!(
            caught(|| -> u8 { panic!("shape {}", 3) }),
            Err("shape 3".to_string())
        );
        let probed = quietly(|| -> u8 {
            assert!(is_expected());
            panic!("plain")
        });
        assert_eq!(probed, Err("plain".to_string()));
        assert!(!is_expected());
    }
}
