//! Open files, bounded: a round of ten thousand reports is folded with a few hundred handles.

use std::{
    collections::HashMap,
    fs::File,
    io,
    path::Path,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Keeps files open between reads. The one that was used longest ago is closed first. A read that finds every handle in use by
/// other threads waits for one.
pub(super) struct Handles {
    most: usize,
    next: AtomicU64,
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Default)]
struct State {
    open: HashMap<u64, Entry>,
    /// Handles that are being opened, outside of the lock.
    opening: usize,
    uses: u64,
}

struct Entry {
    file: Arc<File>,
    readers: usize,
    used: u64,
}

impl Handles {
    pub fn new(most: usize) -> Self {
        Self {
            most: most.max(1),
            next: AtomicU64::new(0),
            state: Mutex::default(),
            freed: Condvar::new(),
        }
    }

    /// A name for a file.
    pub fn name(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Reads from a file, which is opened if it isn't. `read` must not use these handles, nor panic.
    pub fn with<T>(
        &self,
        name: u64,
        path: &Path,
        read: impl FnOnce(&File) -> io::Result<T>,
    ) -> io::Result<T> {
        // Counted as in use while it is read, so that no other thread closes it.
        let file = self.take(name, path)?;
        let result = read(&file);
        // Before it is given back: another thread may then close it, and a handle that is still held here would be one
        // too many.
        drop(file);
        self.give_back(name);
        result
    }

    /// Closes a file that has no readers any more.
    pub fn close(&self, name: u64) {
        // Dropped after the lock is free: closing can wait for the disk.
        let gone = self.state().open.remove(&name);
        drop(gone);
        self.freed.notify_one();
    }

    #[cfg(test)]
    pub fn open(&self) -> usize {
        self.state().open.len()
    }

    fn take(&self, name: u64, path: &Path) -> io::Result<Arc<File>> {
        let mut state = self.state();
        loop {
            if let Some(entry) = state.open.get_mut(&name) {
                entry.readers += 1;
                return Ok(entry.file.clone());
            }
            // Those that are being opened count: without them, all threads at once could go beyond the limit.
            let gone = if state.open.len() + state.opening < self.most {
                None
            } else {
                match state.oldest() {
                    Some(oldest) => state.open.remove(&oldest),
                    None => {
                        let waited = self.freed.wait(state);
                        state = waited.unwrap_or_else(PoisonError::into_inner);
                        continue;
                    }
                }
            };
            state.opening += 1;
            drop(state);
            // Closed before the next one is opened, and outside of the lock: both may wait for a disk.
            drop(gone);
            let opened = File::open(path);
            let mut state = self.state();
            state.opening -= 1;
            // The place that it had reserved is free again, and a thread may wait for it.
            let file = opened.inspect_err(|_| self.freed.notify_one())?;
            // Another thread may have opened it meanwhile; then this handle goes.
            let entry = state.open.entry(name).or_insert_with(|| Entry {
                file: Arc::new(file),
                readers: 0,
                used: 0,
            });
            entry.readers += 1;
            return Ok(entry.file.clone());
        }
    }

    fn give_back(&self, name: u64) {
        let mut state = self.state();
        state.uses += 1;
        let used = state.uses;
        if let Some(entry) = state.open.get_mut(&name) {
            entry.readers -= 1;
            entry.used = used;
        }
        drop(state);
        self.freed.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Of those without a reader, the one that was read longest ago.
    fn oldest(&self) -> Option<u64> {
        let idle = self.open.iter().filter(|(_, entry)| entry.readers == 0);
        let oldest = idle.min_by_key(|(_, entry)| entry.used);
        oldest.map(|(name, _)| *name)
    }
}
