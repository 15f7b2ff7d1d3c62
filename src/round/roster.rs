//! Which workers there are, and which of them are alive. The roster outlives jobs.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::ids::{Timestamp, WorkerId};

/// How many workers that are gone are remembered, unless told otherwise.
const REMEMBERED: usize = 256;

/// All workers that registered, with what each said about itself (`I`).
///
/// Every step costs O(log workers), and [`Roster::expire`] that for each worker that it finds lost.
#[derive(Debug)]
pub struct Roster<I> {
    workers: BTreeMap<WorkerId, WorkerRecord<I>>,
    /// The live ones, by the time of their last request.
    live: BTreeSet<(Timestamp, WorkerId)>,
    /// Those that are gone, by the time of their last request.
    gone: BTreeSet<(Timestamp, WorkerId)>,
    expiry: Duration,
    remembered: usize,
    last: u64,
    /// Those that are not remembered any more, until they are asked for.
    forgotten: Vec<WorkerId>,
}

/// One worker.
#[derive(Debug, Clone)]
pub struct WorkerRecord<I> {
    /// What it said at registration.
    pub info: I,
    /// When it registered.
    pub registered: Timestamp,
    /// When its last request came.
    pub last_seen: Timestamp,
    /// Whether it is there.
    pub state: WorkerState,
}

/// Whether a worker is there: `live` has sent a request lately, `lost` has been silent for too long and is live again after
/// its next request, `left` said that it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// It showed a sign of life within the expiry.
    Live,
    /// Silent for longer; live again after its next request.
    Lost,
    /// It said that it leaves.
    Left,
}

impl<I> Roster<I> {
    /// An empty roster. A worker that is silent for `expiry` is lost.
    pub fn new(expiry: Duration) -> Self {
        Self {
            workers: BTreeMap::new(),
            live: BTreeSet::new(),
            gone: BTreeSet::new(),
            expiry,
            remembered: REMEMBERED,
            last: 0,
            forgotten: Vec::new(),
        }
    }

    /// The same, if it remembers this many workers that are gone, for the operator.
    pub fn remembering(mut self, gone: usize) -> Self {
        self.remembered = gone;
        self
    }

    /// How long a worker may be silent.
    pub fn expiry(&self) -> Duration {
        self.expiry
    }

    /// A new worker.
    pub fn register(&mut self, info: I, now: Timestamp) -> WorkerId {
        self.last += 1;
        let worker = WorkerId(self.last);
        let record = WorkerRecord {
            info,
            registered: now,
            last_seen: now,
            state: WorkerState::Live,
        };
        self.workers.insert(worker, record);
        self.live.insert((now, worker));
        // At each registration: no other event makes the list longer for good.
        self.forget_oldest();
        worker
    }

    /// The workers that are not remembered any more, since this was last asked.
    pub fn take_forgotten(&mut self) -> Vec<WorkerId> {
        std::mem::take(&mut self.forgotten)
    }

    /// The number of the worker that registered last; 0 if there was none.
    pub fn last(&self) -> WorkerId {
        WorkerId(self.last)
    }

    /// Goes on with numbers after this one.
    pub fn resume_after(&mut self, last: WorkerId) {
        self.last = self.last.max(last.0);
    }

    /// Puts a worker back as an earlier process knew it.
    pub fn restore(&mut self, worker: WorkerId, record: WorkerRecord<I>) {
        self.last = self.last.max(worker.0);
        let key = (record.last_seen, worker);
        match record.state {
            WorkerState::Live => self.live.insert(key),
            WorkerState::Lost | WorkerState::Left => self.gone.insert(key),
        };
        self.workers.insert(worker, record);
    }

    /// Notes that a worker sent a request. Whether it had been lost, and is live again; `None` for one that is unknown
    /// or has left.
    pub fn touch(&mut self, worker: WorkerId, now: Timestamp) -> Option<bool> {
        let state = self.workers.get(&worker)?.state;
        // Its token ended with it. Who comes back has to register.
        if state == WorkerState::Left {
            return None;
        }
        self.set(worker, WorkerState::Live, now);
        Some(state == WorkerState::Lost)
    }

    /// Notes that a worker leaves. Returns whether it was live.
    pub fn leave(&mut self, worker: WorkerId) -> bool {
        // Not the time of now: leaving is no sign of life that would keep it remembered longer.
        let before = self.set(worker, WorkerState::Left, Timestamp(0));
        before == Some(WorkerState::Live)
    }

    /// Marks the workers lost that have been silent for too long, and returns them in order of registration.
    pub fn expire(&mut self, now: Timestamp) -> Vec<WorkerId> {
        let mut lost = Vec::new();
        // In order of the last request, so that this looks at those alone that are lost, not at thousands that are
        // live.
        while let Some((last_seen, worker)) = self.live.first().copied() {
            if last_seen + self.expiry > now {
                break;
            }
            self.set(worker, WorkerState::Lost, last_seen);
            lost.push(worker);
        }
        // In order of registration, so that the leases move the same way in every run.
        lost.sort_unstable();
        lost
    }

    /// Excuses the silence of a time in which nobody could have been heard. It ended now.
    pub fn excuse(&mut self, away: Duration, now: Timestamp) {
        for (last_seen, worker) in std::mem::take(&mut self.live) {
            let seen = (last_seen + away).min(now);
            if let Some(record) = self.workers.get_mut(&worker) {
                record.last_seen = seen;
            }
            self.live.insert((seen, worker));
        }
    }

    /// When [`Roster::expire`] is next due.
    pub fn next_expiry(&self) -> Option<Timestamp> {
        let (last_seen, _) = self.live.first()?;
        Some(*last_seen + self.expiry)
    }

    /// The live workers, in order of registration.
    pub fn live(&self) -> impl Iterator<Item = (WorkerId, &WorkerRecord<I>)> {
        self.iter()
            .filter(|(_, record)| record.state == WorkerState::Live)
    }

    /// How many workers are live. Unlike [`Roster::live`], it takes constant time.
    pub fn live_count(&self) -> usize {
        self.live.len()
    }

    /// How many workers are remembered, live or gone.
    pub fn len(&self) -> usize {
        self.workers.len()
    }

    /// Whether no worker is remembered.
    pub fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// All that are remembered, in order of registration.
    pub fn iter(&self) -> impl Iterator<Item = (WorkerId, &WorkerRecord<I>)> {
        self.workers
            .iter()
            .map(|(worker, record)| (*worker, record))
    }

    /// Those that registered after this one, in order of registration. Finds the first of them in O(log workers).
    pub fn after(&self, worker: WorkerId) -> impl Iterator<Item = (WorkerId, &WorkerRecord<I>)> {
        self.workers
            .range((Bound::Excluded(worker), Bound::Unbounded))
            .map(|(worker, record)| (*worker, record))
    }

    /// One of them.
    pub fn find(&self, worker: WorkerId) -> Option<&WorkerRecord<I>> {
        self.workers.get(&worker)
    }

    /// What one of them said about itself, to be changed.
    pub fn info_mut(&mut self, worker: WorkerId) -> Option<&mut I> {
        self.workers.get_mut(&worker).map(|record| &mut record.info)
    }

    /// Changes a worker's state and returns the state before. Its last request came at `seen` or later.
    fn set(
        &mut self,
        worker: WorkerId,
        state: WorkerState,
        seen: Timestamp,
    ) -> Option<WorkerState> {
        let record = self.workers.get_mut(&worker)?;
        let before = std::mem::replace(&mut record.state, state);
        let old_key = (record.last_seen, worker);
        // Requests of one worker overtake each other on their way here: time must not run backwards.
        record.last_seen = record.last_seen.max(seen);
        let key = (record.last_seen, worker);
        // It is in one of the two. Which one depends on the state before, and removing from both is as cheap as
        // asking.
        self.live.remove(&old_key);
        self.gone.remove(&old_key);
        match state {
            WorkerState::Live => self.live.insert(key),
            WorkerState::Lost | WorkerState::Left => self.gone.insert(key),
        };
        Some(before)
    }

    fn forget_oldest(&mut self) {
        while self.gone.len() > self.remembered {
            if let Some((_, worker)) = self.gone.pop_first() {
                self.workers.remove(&worker);
                self.forgotten.push(worker);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_worker_is_lost_once_and_live_again_when_heard_of() {
        let mut roster = Roster::new(Duration::from_secs(90));
        let worker = roster.register("a", Timestamp(0));
        assert_eq!(roster.touch(worker, Timestamp(1000)), Some(false));
        assert_eq!(roster.next_expiry(), Some(Timestamp(91_000)));
        assert!(roster.expire(Timestamp(90_999)).is_empty());
        assert_eq!(roster.expire(Timestamp(91_000)), [worker]);
        assert!(roster.expire(Timestamp(99_000)).is_empty());
        assert_eq!(roster.next_expiry(), None);
        assert_eq!(roster.touch(worker, Timestamp(99_000)), Some(true));
        assert_eq!((roster.live().count(), roster.live_count()), (1, 1));
    }

    #[test]
    fn silence_counts_only_while_somebody_listens() {
        let mut roster = Roster::new(Duration::from_secs(90));
        let silent = roster.register("a", Timestamp(0));
        let heard = roster.register("b", Timestamp(0));
        roster.touch(heard, Timestamp(1_001_000));
        roster.excuse(Duration::from_secs(1000), Timestamp(1_001_000));
        assert_eq!(roster.next_expiry(), Some(Timestamp(1_090_000)));
        assert_eq!(roster.expire(Timestamp(1_090_000)), [silent]);
        // Nobody is heard of in the future.
        assert_eq!(roster.expire(Timestamp(1_091_000)), [heard]);
    }

    #[test]
    fn one_that_left_stays_gone_and_the_gone_are_not_remembered_for_ever() {
        let mut roster = Roster::new(Duration::from_secs(1));
        let first = roster.register((), Timestamp(0));
        assert!(roster.leave(first) && !roster.leave(first));
        assert_eq!(roster.touch(first, Timestamp(0)), None);
        for _ in 0..2 * REMEMBERED {
            let worker = roster.register((), Timestamp(0));
            roster.leave(worker);
        }
        assert!(roster.iter().count() <= REMEMBERED + 1);
        // Of those that are gone, the ones that have been silent the longest are forgotten.
        let long_lived = roster.register((), Timestamp(0));
        roster.touch(long_lived, Timestamp(5000));
        for _ in 0..2 * REMEMBERED {
            let worker = roster.register((), Timestamp(1));
            roster.leave(worker);
        }
        roster.expire(Timestamp(6000));
        roster.register((), Timestamp(6000));
        assert_eq!(roster.touch(long_lived, Timestamp(6000)), Some(true));
        assert_eq!(roster.touch(WorkerId(999_999), Timestamp(0)), None);
    }
}
