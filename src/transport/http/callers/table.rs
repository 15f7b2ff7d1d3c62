//! What is remembered of many callers, in a table of bounded size.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Parts with a lock each, so that requests seldom wait for each other.
const SHARDS: usize = 16;

/// What is remembered of a caller.
pub(super) trait Remembered: Default {
    /// Whether a new one would be the same, so that it can be forgotten. The time is since any fixed moment.
    fn is_fresh(&self, now: Duration) -> bool;
}

struct Entry<T> {
    value: Arc<T>,
    used: Duration,
}

/// Callers by key, at most as many as its capacity, and those that somebody holds an `Arc` of.
pub(super) struct Table<K, T> {
    shards: Vec<Mutex<HashMap<K, Entry<T>>>>,
    hasher: RandomState,
    per_shard: usize,
}

impl<K: Eq + Hash + Copy, T: Remembered> Table<K, T> {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            per_shard: capacity.div_ceil(SHARDS).max(1),
        }
    }

    /// The caller with this key, known or new.
    pub(super) fn get(&self, key: K, now: Duration) -> Arc<T> {
        let shard = self.hasher.hash_one(key) as usize % SHARDS;
        let mut shard = self.shards[shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = shard.get_mut(&key) {
            entry.used = now;
            return entry.value.clone();
        }
        if shard.len() >= self.per_shard {
            make_room(&mut shard, now);
        }
        let value = Arc::<T>::default();
        let entry = Entry {
            value: value.clone(),
            used: now,
        };
        shard.insert(key, entry);
        value
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().unwrap().len())
            .sum()
    }
}

/// Forgets all that nothing is lost with; if there are none, the one that was silent for the longest.
fn make_room<K: Eq + Hash + Copy, T: Remembered>(shard: &mut HashMap<K, Entry<T>>, now: Duration) {
    let before = shard.len();
    // Somebody who holds an entry counts in it: an open connection, an upload.
    shard.retain(|_, entry| Arc::strong_count(&entry.value) > 1 || !entry.value.is_fresh(now));
    if shard.len() < before {
        return;
    }
    let oldest = shard
        .iter()
        .min_by_key(|(_, entry)| (Arc::strong_count(&entry.value) > 1, entry.used));
    if let Some(key) = oldest.map(|(key, _)| *key) {
        shard.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[derive(Default)]
    struct Used(AtomicBool);

    impl Remembered for Used {
        fn is_fresh(&self, _: Duration) -> bool {
            !self.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn it_stays_bounded_and_forgets_what_is_fresh_first() {
        let table: Table<u32, Used> = Table::new(1024);
        let used = table.get(1_000_000, Duration::ZERO);
        used.0.store(true, Ordering::Relaxed);
        drop(used);
        for key in 0..100_000 {
            table.get(key, Duration::from_secs(u64::from(key)));
        }
        assert!(table.len() <= 1024, "{}", table.len());
        let found = table.get(1_000_000, Duration::from_secs(100_000));
        assert!(found.0.load(Ordering::Relaxed));
        // Without a fresh one, the oldest goes.
        for key in 0..100_000 {
            let now = Duration::from_secs(200_000 + u64::from(key));
            table.get(key, now).0.store(true, Ordering::Relaxed);
        }
        assert!(table.len() <= 1024, "{}", table.len());
    }
}
