//! Threads as an argument: pure code says what may run at once, its driver says on which threads.

/// Runs independent pieces of work, on as many threads as it has.
///
/// # Contract
///
/// 1. [`Executor::run`] calls `work` exactly once for each index, in any order, and returns only after all calls ended.
/// 2. A panic in `work` reaches the caller of [`Executor::run`] as a panic, and no call is running any more then.
/// 3. [`Executor::threads`] is at least 1. It may be used to size pieces, but results never depend on it.
pub trait Executor: Send + Sync {
    /// How many pieces can run at once; at least 1.
    fn threads(&self) -> usize;

    /// Calls `work` once for each of `0..count`, in any order and possibly at the same time; returns when all are done.
    fn run(&self, count: usize, work: &(dyn Fn(usize) + Sync));
}

/// The calling thread alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Serial;

impl Executor for Serial {
    fn threads(&self) -> usize {
        1
    }

    fn run(&self, count: usize, work: &(dyn Fn(usize) + Sync)) {
        (0..count).for_each(work);
    }
}
