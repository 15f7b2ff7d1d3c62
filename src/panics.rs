//! Where a panic of foreign code ends: strategies and trainers are an embedder's own, and burn panics on shapes.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Runs `work`; a panic is its message as an error.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| message(&*panic))
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_message() {
        assert_eq!(caught(|| 1), Ok(1));
        assert_eq!(
            caught(|| -> u8 { panic!("shape {}", 3) }),
            Err("shape 3".to_string())
        );
        assert_eq!(
            caught(|| -> u8 { panic!("plain") }),
            Err("plain".to_string())
        );
    }
}
