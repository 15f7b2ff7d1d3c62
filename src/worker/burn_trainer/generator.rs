//! burn's generator of random numbers, which the whole process shares.

use std::sync::{Mutex, PoisonError};

/// Building a module may draw from burn's generator, which the whole process shares: seeding it and drawing must not be
/// interleaved with another thread's.
static BURN_GENERATOR: Mutex<()> = Mutex::new(());

/// Keeps the generator for one user, who seeds it and draws from it, until the returned guard is dropped.
pub(super) fn lock_generator() -> impl Drop {
    // A panic while building a module leaves nothing behind that the next one could stumble over.
    BURN_GENERATOR
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}
