//! Leases move when they must, and no further.

use rand::RngExt;

use super::*;
use crate::{
    ids::RoundId,
    rng::{Purpose, keyed},
};

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
        .map(|(worker, _)| leases.held_by(worker).count())
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

#[test]
fn the_data_of_a_worker_goes_to_the_one_that_it_came_back_as_in_whatever_order_that_is_heard() {
    let at_home = |home: u64| [(ClientId(0), Some(WorkerId(home)))];
    // The new one registers before the old one is missed.
    let mut leases = Leases::default();
    leases.join(WorkerId(1), 1, None);
    leases.start(at_home(1));
    assert!(leases.join(WorkerId(2), 1, Some(WorkerId(1))).is_empty());
    let handover = Move {
        client: ClientId(0),
        from: Some(WorkerId(1)),
        to: Some(WorkerId(2)),
    };
    assert_eq!(leases.lose(WorkerId(1)), [handover]);
    // It comes back before the clients are fixed.
    let mut leases = Leases::default();
    leases.join(WorkerId(1), 1, None);
    leases.lose(WorkerId(1));
    leases.join(WorkerId(2), 1, Some(WorkerId(1)));
    leases.start(at_home(1));
    assert_eq!(leases.holder(ClientId(0)), Some(WorkerId(2)));
    // The replacement goes before the one that it replaced, and is replaced itself.
    let mut leases = Leases::default();
    leases.join(WorkerId(1), 1, None);
    leases.start(at_home(1));
    leases.join(WorkerId(2), 1, Some(WorkerId(1)));
    leases.lose(WorkerId(2));
    leases.lose(WorkerId(1));
    assert_eq!(leases.orphans(), 1);
    leases.join(WorkerId(3), 1, Some(WorkerId(2)));
    assert_eq!(leases.holder(ClientId(0)), Some(WorkerId(3)));
}

#[test]
fn joining_twice_changes_the_slots_and_nothing_else() {
    let mut leases = leases(4, &[(1, 1), (2, 1)]);
    assert!(leases.join(WorkerId(2), 3, None).is_empty());
    assert_eq!(counts(&leases), [2, 2]);
    assert_eq!(leases.rebalance().len(), 1);
    assert_eq!(counts(&leases), [1, 3]);
}

/// The rules, said as plainly as they can be, without an index.
#[test]
fn the_indices_agree_with_counting() {
    let mut generator = keyed(1, Purpose::Strategy, RoundId(0), None);
    for _ in 0..200 {
        let mut leases = Leases::default();
        let clients = generator.random_range(0..30);
        leases.join(WorkerId(1), 2, None);
        leases.start((0..clients).map(|client| {
            let home = (client % 3 == 0).then_some(WorkerId(u64::from(client % 5)));
            (ClientId(client), home)
        }));
        for _ in 0..40 {
            let worker = WorkerId(generator.random_range(0..6));
            let moves = match generator.random_range(0..3) {
                0 => leases.join(worker, generator.random_range(1..4), None),
                1 => leases.lose(worker),
                _ => leases.rebalance(),
            };
            assert!(
                moves
                    .iter()
                    .all(|step| leases.holder(step.client) == step.to)
            );
            check(&leases, clients);
        }
    }
}

fn check(leases: &Leases, clients: u32) {
    let count = |worker: WorkerId| {
        let holds = |client: &u32| leases.holder(ClientId(*client)) == Some(worker);
        (0..clients).filter(holds).count()
    };
    let live: Vec<_> = leases.workers().collect();
    let held: usize = live.iter().map(|(worker, _)| count(*worker)).sum();
    assert_eq!(
        (leases.held(), leases.orphans()),
        (held, clients as usize - held)
    );
    for (worker, _) in &live {
        assert_eq!(count(*worker), leases.held_by(*worker).count());
    }
    for client in 0..clients {
        let holder = leases.holder(ClientId(client));
        let home = (client % 3 == 0).then_some(WorkerId(u64::from(client % 5)));
        match home {
            Some(home) => assert_eq!(holder, leases.is_live(home).then_some(home)),
            None => assert_eq!(holder.is_some(), !live.is_empty()),
        }
    }
    let next = |(worker, slots): &(WorkerId, u32)| {
        ((count(*worker) + 1) as f64 / f64::from(*slots), *worker)
    };
    let lightest = live
        .iter()
        .map(next)
        .min_by(|a, b| a.partial_cmp(b).unwrap());
    assert_eq!(leases.loads.lightest(), lightest.map(|(_, worker)| worker));
}

#[test]
fn the_first_holders_are_those_of_the_leases() {
    for (clients, workers) in [
        (9, vec![(1, 1), (2, 2)]),
        (5, vec![(3, 4), (7, 1), (8, 2)]),
        (2, vec![(1, 1), (2, 1), (3, 1)]),
    ] {
        let leases = leases(clients, &workers);
        let expected: Vec<_> = (0..clients)
            .map(|client| leases.holder(ClientId(client)).unwrap())
            .collect();
        let workers: Vec<_> = workers
            .iter()
            .map(|(worker, slots)| (WorkerId(*worker), *slots))
            .collect();
        assert_eq!(first_holders(&workers, clients as usize), expected);
    }
    assert!(first_holders(&[], 3).is_empty());
}
