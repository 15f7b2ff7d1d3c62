//! Which worker acts for which client.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{ClientId, WorkerId};

/// The leases of one job: each client has at most one worker, which is alive.
#[derive(Debug, Default)]
pub(super) struct Leases {
    holders: BTreeMap<ClientId, Option<WorkerId>>,
    /// Clients whose data only one worker has: their lease never moves.
    homes: BTreeMap<ClientId, WorkerId>,
    /// Live workers, with how many clients each trains at once.
    workers: BTreeMap<WorkerId, u32>,
}

/// A lease that changed hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Move {
    pub client: ClientId,
    pub from: Option<WorkerId>,
    pub to: Option<WorkerId>,
}

impl Leases {
    pub fn workers(&self) -> &BTreeMap<WorkerId, u32> {
        &self.workers
    }

    pub fn holder(&self, client: ClientId) -> Option<WorkerId> {
        self.holders.get(&client).copied().flatten()
    }

    /// The clients of a worker, in order.
    pub fn held_by(&self, worker: WorkerId) -> impl Iterator<Item = ClientId> + '_ {
        self.holders
            .iter()
            .filter(move |(_, holder)| **holder == Some(worker))
            .map(|(client, _)| *client)
    }

    /// Clients that nobody can act for now.
    pub fn orphans(&self) -> usize {
        self.holders
            .values()
            .filter(|holder| holder.is_none())
            .count()
    }

    /// Fixes the clients and deals them out.
    pub fn start(
        &mut self,
        clients: impl IntoIterator<Item = (ClientId, Option<WorkerId>)>,
    ) -> Vec<Move> {
        for (client, home) in clients {
            self.holders.insert(client, None);
            if let Some(home) = home {
                self.homes.insert(client, home);
            }
        }
        self.place_orphans()
    }

    /// A worker is there: it takes what nobody holds. What others hold stays until [`Leases::rebalance`].
    pub fn join(&mut self, worker: WorkerId, slots: u32, replaces: Option<WorkerId>) -> Vec<Move> {
        self.workers.insert(worker, slots.max(1));
        if let Some(former) = replaces.filter(|former| !self.workers.contains_key(former)) {
            self.homes
                .values_mut()
                .filter(|home| **home == former)
                .for_each(|home| *home = worker);
        }
        self.place_orphans()
    }

    /// A worker is gone: its clients go to the others, but for those whose data went with it.
    pub fn lose(&mut self, worker: WorkerId) -> Vec<Move> {
        self.workers.remove(&worker);
        let lost: BTreeSet<_> = self.held_by(worker).collect();
        lost.iter().for_each(|client| {
            self.holders.insert(*client, None);
        });
        let mut moves = self.place_orphans();
        moves
            .iter_mut()
            .filter(|step| lost.contains(&step.client))
            .for_each(|step| step.from = Some(worker));
        let placed: BTreeSet<_> = moves.iter().map(|step| step.client).collect();
        let unplaced = lost.difference(&placed).map(|client| Move {
            client: *client,
            from: Some(worker),
            to: None,
        });
        moves.extend(unplaced);
        moves.sort_by_key(|step| step.client);
        moves
    }

    /// Evens the load out, for between rounds: clients move from the worker with most per slot to the one with least,
    /// as long as that makes the larger of the two loads smaller.
    pub fn rebalance(&mut self) -> Vec<Move> {
        let mut moves = Vec::new();
        loop {
            let movable = |worker: &WorkerId| {
                self.held_by(*worker)
                    .filter(|client| !self.homes.contains_key(client))
                    .last()
            };
            let heaviest = self
                .workers
                .keys()
                .filter(|worker| movable(worker).is_some())
                .max_by(|a, b| {
                    self.load(**a, 0)
                        .total_cmp(&self.load(**b, 0))
                        .then(b.cmp(a))
                })
                .copied();
            let lightest = self.lightest();
            let (Some(heaviest), Some(lightest)) = (heaviest, lightest) else {
                return moves;
            };
            if self.load(lightest, 1) >= self.load(heaviest, 0) {
                return moves;
            }
            let Some(client) = movable(&heaviest) else {
                return moves;
            };
            self.holders.insert(client, Some(lightest));
            moves.push(Move {
                client,
                from: Some(heaviest),
                to: Some(lightest),
            });
        }
    }

    fn place_orphans(&mut self) -> Vec<Move> {
        let orphans: Vec<_> = self
            .holders
            .iter()
            .filter(|(_, holder)| holder.is_none())
            .map(|(id, _)| *id)
            .collect();
        let mut moves = Vec::new();
        for client in orphans {
            let to = match self.homes.get(&client) {
                Some(home) => self.workers.contains_key(home).then_some(*home),
                None => self.lightest(),
            };
            if to.is_some() {
                self.holders.insert(client, to);
                moves.push(Move {
                    client,
                    from: None,
                    to,
                });
            }
        }
        moves
    }

    /// The worker with the fewest clients per slot once it had one more; the earliest registered of equals.
    fn lightest(&self) -> Option<WorkerId> {
        self.workers
            .keys()
            .min_by(|a, b| {
                self.load(**a, 1)
                    .total_cmp(&self.load(**b, 1))
                    .then(a.cmp(b))
            })
            .copied()
    }

    /// Clients per slot, with `more` clients than it has.
    fn load(&self, worker: WorkerId, more: usize) -> f64 {
        let slots = self.workers.get(&worker).copied().unwrap_or(1);
        (self.held_by(worker).count() + more) as f64 / f64::from(slots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leases(clients: u32, workers: &[(u64, u32)]) -> Leases {
        let mut leases = Leases::default();
        for (worker, slots) in workers {
            leases.join(WorkerId(*worker), *slots, None);
        }
        leases.start((0..clients).map(|client| (ClientId(client), None)));
        leases
    }

    fn counts(leases: &Leases) -> Vec<usize> {
        leases
            .workers()
            .keys()
            .map(|worker| leases.held_by(*worker).count())
            .collect()
    }

    #[test]
    fn clients_are_dealt_in_proportion_to_slots() {
        assert_eq!(counts(&leases(9, &[(1, 1), (2, 2)])), [3, 6]);
        assert_eq!(counts(&leases(2, &[(1, 1), (2, 1), (3, 1)])), [1, 1, 0]);
    }

    #[test]
    fn a_lost_workers_clients_move_at_once_and_a_late_worker_gets_some_at_the_next_rebalance() {
        let mut leases = leases(4, &[(1, 1), (2, 1)]);
        let moves = leases.lose(WorkerId(1));
        assert!(
            moves
                .iter()
                .all(|step| step.from == Some(WorkerId(1)) && step.to == Some(WorkerId(2)))
        );
        assert_eq!(moves.len(), 2);
        assert!(
            leases.join(WorkerId(3), 1, None).is_empty(),
            "what is held stays within the round"
        );
        assert_eq!(leases.rebalance().len(), 2);
        assert_eq!(counts(&leases), [2, 2]);
        assert!(leases.rebalance().is_empty());
    }

    #[test]
    fn without_workers_clients_are_nobodys_until_one_joins() {
        let mut leases = leases(2, &[(1, 1)]);
        assert!(
            leases
                .lose(WorkerId(1))
                .iter()
                .all(|step| step.to.is_none())
        );
        assert_eq!(leases.orphans(), 2);
        assert_eq!(leases.join(WorkerId(2), 1, None).len(), 2);
    }

    #[test]
    fn a_client_whose_data_is_its_workers_own_never_moves() {
        let mut leases = Leases::default();
        leases.join(WorkerId(1), 1, None);
        leases.join(WorkerId(2), 1, None);
        leases.start([
            (ClientId(0), Some(WorkerId(1))),
            (ClientId(1), Some(WorkerId(2))),
        ]);
        leases.lose(WorkerId(1));
        assert_eq!(leases.holder(ClientId(0)), None);
        assert!(leases.rebalance().is_empty());
        leases.join(WorkerId(3), 1, Some(WorkerId(1)));
        assert_eq!(leases.holder(ClientId(0)), Some(WorkerId(3)));
    }
}
