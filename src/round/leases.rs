//! Which worker acts for which client.
//!
//! Indices keep every step cheap if there are many of both: a look-up costs O(log n), and the arrival or the loss
//! of a worker O(log n) for each client that moves. Nothing here knows of rounds, tasks or time.

mod load;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use load::Loads;
use serde::{Deserialize, Serialize};

use crate::ids::{ClientId, WorkerId};

/// Who gets the lease of each of `clients` clients when a job starts with these workers and their slots; empty if
/// there is no worker. It is what [`super::RoundMachine`] does, for dealing data before there are leases.
pub fn first_holders(workers: &[(WorkerId, u32)], clients: usize) -> Vec<WorkerId> {
    let mut leases = Leases::default();
    for (worker, slots) in workers {
        leases.join(*worker, *slots, None);
    }
    leases.start((0..clients as u32).map(|client| (ClientId(client), None)));
    leases.holders.into_values().flatten().collect()
}

/// The leases of one job: each client has at most one worker, which is alive.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Leases {
    holders: BTreeMap<ClientId, Option<WorkerId>>,
    workers: BTreeMap<WorkerId, Worker>,
    /// Clients that any worker could act for, while there is none.
    unplaced: BTreeSet<ClientId>,
    /// Clients whose data, or whose personal tensors, only one worker has, by that worker: their lease never moves to another.
    homes: BTreeMap<WorkerId, BTreeSet<ClientId>>,
    /// Workers that came back as another one, which has their data.
    heirs: BTreeMap<WorkerId, WorkerId>,
    /// Number of clients with a holder.
    held: usize,
    loads: Loads,
}

/// A live worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Worker {
    slots: u32,
    clients: BTreeSet<ClientId>,
    /// Those of its clients that another worker could act for.
    movable: BTreeSet<ClientId>,
}

/// A lease that moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Move {
    pub client: ClientId,
    pub from: Option<WorkerId>,
    pub to: Option<WorkerId>,
}

impl Leases {
    /// The live workers with their slots, in order of registration.
    pub fn workers(&self) -> impl ExactSizeIterator<Item = (WorkerId, u32)> + '_ {
        self.workers.iter().map(|(id, worker)| (*id, worker.slots))
    }

    pub fn is_live(&self, worker: WorkerId) -> bool {
        self.workers.contains_key(&worker)
    }

    pub fn holder(&self, client: ClientId) -> Option<WorkerId> {
        self.holders.get(&client).copied().flatten()
    }

    /// The clients of a worker, in order.
    #[cfg(test)]
    pub fn held_by(&self, worker: WorkerId) -> impl Iterator<Item = ClientId> + '_ {
        let worker = self.workers.get(&worker);
        worker
            .into_iter()
            .flat_map(|worker| &worker.clients)
            .copied()
    }

    /// The clients whose data this worker alone has, in order.
    pub fn at_home(&self, worker: WorkerId) -> Vec<ClientId> {
        let clients = self.homes.get(&worker);
        clients.into_iter().flatten().copied().collect()
    }

    /// Whether there are clients that this worker alone can act for.
    pub fn is_home(&self, worker: WorkerId) -> bool {
        let clients = self.homes.get(&worker);
        clients.is_some_and(|clients| !clients.is_empty())
    }

    /// How many clients a worker acts for.
    pub fn count(&self, worker: WorkerId) -> usize {
        self.workers
            .get(&worker)
            .map_or(0, |worker| worker.clients.len())
    }

    /// How many clients have a live worker.
    pub fn held(&self) -> usize {
        self.held
    }

    /// How many clients have no live worker.
    pub fn orphans(&self) -> usize {
        self.holders.len() - self.held
    }

    /// Fixes the clients and deals them out.
    pub fn start(
        &mut self,
        clients: impl IntoIterator<Item = (ClientId, Option<WorkerId>)>,
    ) -> Vec<Move> {
        for (client, home) in clients {
            self.holders.insert(client, None);
            // A worker may have been replaced while the job was prepared.
            let place = match home.map(|home| self.present_home(home)) {
                Some(home) => self.homes.entry(home).or_default(),
                None => &mut self.unplaced,
            };
            place.insert(client);
        }
        // Clients with a home first: their workers' loads are then known, and the other clients go to those with
        // fewer.
        let live: Vec<_> = self.workers.keys().copied().collect();
        let mut moves: Vec<_> = live
            .into_iter()
            .flat_map(|worker| self.bring_home(worker))
            .collect();
        moves.extend(self.place());
        sorted(moves)
    }

    /// A worker has come: it takes the clients without a holder. What others hold stays until [`Leases::rebalance`], but
    /// for the data of the worker that it `replaces`, once that one is gone.
    pub fn join(&mut self, worker: WorkerId, slots: u32, replaces: Option<WorkerId>) -> Vec<Move> {
        // Loads are clients per slot.
        let slots = slots.max(1);
        self.change(worker, |entry| entry.slots = slots);
        // It is here itself again, so that nobody stands in for it.
        self.heirs.remove(&worker);
        if let Some(former) = replaces.filter(|former| *former != worker) {
            self.heirs.insert(former, worker);
            // As long as the former one is live, its data is its own: the heir waits for it to go.
            if !self.is_live(former) {
                self.inherit(former);
            }
        }
        let mut moves = self.bring_home(worker);
        moves.extend(self.place());
        sorted(moves)
    }

    /// A worker is gone: its clients go to the others, but for those whose data went with it.
    pub fn lose(&mut self, worker: WorkerId) -> Vec<Move> {
        let Some(gone) = self.workers.remove(&worker) else {
            return Vec::new();
        };
        self.loads.remove(worker);
        // `assign` counts each of them again when it gets a new worker.
        self.held -= gone.clients.len();
        for client in &gone.clients {
            self.holders.insert(*client, None);
        }
        // Those alone whose data others have, too.
        self.unplaced.extend(&gone.movable);
        let heir = self.inherit(worker);
        let mut moves = self.bring_home(heir);
        moves.extend(self.place());
        // The log shall say from whom a client came, and `assign` does not know it.
        for step in &mut moves {
            step.from = gone.clients.contains(&step.client).then_some(worker);
        }
        let orphaned = gone
            .clients
            .iter()
            .filter(|client| self.holder(**client).is_none());
        moves.extend(orphaned.map(|client| Move {
            client: *client,
            from: Some(worker),
            to: None,
        }));
        sorted(moves)
    }

    /// Evens out the load between rounds: clients move from the worker with most per slot to the one with least,
    /// as long as that makes the larger of the two loads smaller.
    pub fn rebalance(&mut self) -> Vec<Move> {
        let mut moves = Vec::new();
        while let Some((heaviest, lightest)) = self.loads.uneven() {
            let worker = self.workers.get(&heaviest);
            // `uneven` names only workers that have a client to move. If that index were wrong, the loop would not
            // end.
            let Some(client) = worker.and_then(|worker| worker.movable.last().copied()) else {
                break;
            };
            self.change(heaviest, |worker| {
                worker.clients.remove(&client);
                worker.movable.remove(&client);
            });
            self.held -= 1;
            // One client at a time, and loads anew after each: this way no worker gets more than its share.
            self.assign(client, lightest, true);
            moves.push(Move {
                client,
                from: Some(heaviest),
                to: Some(lightest),
            });
        }
        moves
    }

    /// The worker that has this worker's data now: the last of those that replaced it.
    fn present_home(&self, mut worker: WorkerId) -> WorkerId {
        while let Some(heir) = self.heirs.get(&worker).filter(|_| !self.is_live(worker)) {
            worker = *heir;
        }
        worker
    }

    /// Hands the clients of a worker that is gone on to the one that has its data now, and names that one.
    fn inherit(&mut self, former: WorkerId) -> WorkerId {
        let heir = self.present_home(former);
        if heir != former {
            let clients = self.homes.remove(&former).unwrap_or_default();
            self.homes.entry(heir).or_default().extend(clients);
        }
        heir
    }

    /// Gives a worker the clients whose data it alone has, if it is live.
    fn bring_home(&mut self, worker: WorkerId) -> Vec<Move> {
        let at_home = self.homes.get(&worker).filter(|_| self.is_live(worker));
        let idle: Vec<_> = at_home
            .into_iter()
            .flatten()
            .copied()
            .filter(|client| self.holder(*client).is_none())
            .collect();
        idle.into_iter()
            .map(|client| self.assign(client, worker, false))
            .collect()
    }

    /// Deals out the clients without a holder that any worker can act for.
    fn place(&mut self) -> Vec<Move> {
        if self.workers.is_empty() {
            return Vec::new();
        }
        let clients = std::mem::take(&mut self.unplaced);
        clients
            .into_iter()
            .filter_map(|client| Some(self.assign(client, self.loads.lightest()?, true)))
            .collect()
    }

    fn assign(&mut self, client: ClientId, worker: WorkerId, movable: bool) -> Move {
        self.held += 1;
        self.holders.insert(client, Some(worker));
        self.change(worker, |entry| {
            entry.clients.insert(client);
            if movable {
                entry.movable.insert(client);
            }
        });
        Move {
            client,
            from: None,
            to: Some(worker),
        }
    }

    /// Changes a worker, or adds it, and notes its new load.
    fn change(&mut self, id: WorkerId, change: impl FnOnce(&mut Worker)) {
        let worker = self.workers.entry(id).or_insert_with(|| Worker {
            slots: 1,
            clients: BTreeSet::new(),
            movable: BTreeSet::new(),
        });
        change(worker);
        let has_movable = !worker.movable.is_empty();
        self.loads
            .set(id, worker.clients.len(), worker.slots, has_movable);
    }
}

fn sorted(mut moves: Vec<Move>) -> Vec<Move> {
    moves.sort_by_key(|step| step.client);
    moves
}
