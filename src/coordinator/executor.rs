//! Threads for the fold.

use std::{
    num::NonZero,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use crate::report::Executor;

/// A fixed number of threads, started for each piece of work and joined at its end.
#[derive(Debug, Clone, Copy)]
pub struct Threads(usize);

impl Threads {
    /// This many; 0: as many as there are cores.
    pub fn new(threads: usize) -> Self {
        match threads {
            0 => Self(thread::available_parallelism().map_or(1, NonZero::get)),
            _ => Self(threads),
        }
    }
}

impl Executor for Threads {
    fn threads(&self) -> usize {
        self.0
    }

    fn run(&self, count: usize, work: &(dyn Fn(usize) + Sync)) {
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            // One fewer than there are threads: the caller's own works, too.
            for _ in 1..self.0.min(count) {
                scope.spawn(|| take_turns(&next, count, work));
            }
            take_turns(&next, count, work);
        });
    }
}

/// Works on the next index that no thread has taken, until all are taken.
fn take_turns(next: &AtomicUsize, count: usize, work: &(dyn Fn(usize) + Sync)) {
    loop {
        // Relaxed is enough: each index is taken once, and the end of the scope makes all writes visible.
        let index = next.fetch_add(1, Ordering::Relaxed);
        if index >= count {
            return;
        }
        work(index);
    }
}
