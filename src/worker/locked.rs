//! Locks that a panic of another thread does not break.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks what a panic of another thread leaves whole.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
