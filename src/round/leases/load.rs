//! Which worker has the fewest clients per slot, and which the most. It compares fractions exactly, so that the same
//! leases come out everywhere.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use serde::{Deserialize, Serialize};

use crate::ids::WorkerId;

/// The loads of the live workers, in order. Every step costs O(log workers).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Loads {
    present: BTreeMap<WorkerId, Load>,
    /// By the load that one more client would make.
    with_one_more: BTreeSet<Load>,
    /// Those that have a client to spare, by load.
    can_give: BTreeSet<Load>,
}

/// Clients per slot of a worker; equal ones in order of registration.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Load {
    clients: u64,
    slots: u32,
    worker: WorkerId,
}

impl Loads {
    /// Notes the load of a worker, and whether it has a client that could move.
    pub fn set(&mut self, worker: WorkerId, clients: usize, slots: u32, has_movable: bool) {
        self.remove(worker);
        let load = Load {
            clients: clients as u64,
            slots,
            worker,
        };
        self.present.insert(worker, load);
        self.with_one_more.insert(load.plus(1));
        if has_movable {
            self.can_give.insert(load);
        }
    }

    pub fn remove(&mut self, worker: WorkerId) {
        if let Some(load) = self.present.remove(&worker) {
            self.with_one_more.remove(&load.plus(1));
            self.can_give.remove(&load);
        }
    }

    /// The worker that one more client would burden least; the earliest registered of equals.
    pub fn lightest(&self) -> Option<WorkerId> {
        self.with_one_more.first().map(|load| load.worker)
    }

    /// The most and the least loaded worker, if moving a client from the one to the other makes the larger of
    /// the two loads smaller.
    pub fn uneven(&self) -> Option<(WorkerId, WorkerId)> {
        let heaviest = self.can_give.last()?;
        // The last of the set is the youngest of the most loaded. Of equals the oldest gives, as in `lightest` the
        // oldest takes.
        let first_of_equals = Load {
            worker: WorkerId(0),
            ..*heaviest
        };
        let heaviest = self.can_give.range(first_of_equals..).next()?;
        let lightest = self.with_one_more.first()?;
        let is_better = lightest.compare(heaviest) == Ordering::Less;
        is_better.then_some((heaviest.worker, lightest.worker))
    }
}

impl Load {
    fn plus(self, more: u64) -> Self {
        Self {
            clients: self.clients + more,
            ..self
        }
    }

    /// Compares the loads alone.
    fn compare(&self, other: &Self) -> Ordering {
        // Cross-multiplied: a quotient of floats rounds, and two loads that are equal could compare as unequal.
        let left = u128::from(self.clients) * u128::from(other.slots);
        let right = u128::from(other.clients) * u128::from(self.slots);
        left.cmp(&right)
    }
}

impl Ord for Load {
    fn cmp(&self, other: &Self) -> Ordering {
        self.compare(other).then(self.worker.cmp(&other.worker))
    }
}

impl PartialOrd for Load {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Load {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Load {}
