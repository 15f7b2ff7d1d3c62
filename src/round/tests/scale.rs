//! Ten thousand workers and as many clients. No time is measured: with a step that looks at all of them this would
//! take minutes.

use super::bench::*;
use crate::{
    ids::{ClientId, WorkerId},
    round::{Command, Event},
};

const MANY: u32 = 10_000;

#[test]
fn ten_thousand_workers_train_a_round() {
    let mut bench = Bench::planning(config(), u64::from(MANY), MANY);
    let commands = bench.plan(R1, MANY, MANY as usize, 2);
    assert_eq!(woken(&commands).len(), MANY as usize);
    let mut commands = Vec::new();
    for worker in 1..=u64::from(MANY) {
        let task = bench.poll(WorkerId(worker), &[]).unwrap();
        assert_eq!(
            bench.poll(WorkerId(worker), std::slice::from_ref(&task)),
            None
        );
        commands = bench.report(WorkerId(worker), task.client, R1);
    }
    assert_eq!(
        folded(&commands).map(|clients| clients.len()),
        Some(MANY as usize)
    );
}

#[test]
fn ten_thousand_workers_come_and_go_within_a_round() {
    let mut bench = Bench::collecting(config(), 1, MANY);
    for worker in 2..=u64::from(MANY) {
        bench.join(WorkerId(worker));
    }
    bench.tick();
    assert!((1..=u64::from(MANY)).all(|worker| bench.machine.clients_of(WorkerId(worker)) == 1));
    for worker in 1..u64::from(MANY) {
        bench.lose(WorkerId(worker));
    }
    assert_eq!(
        bench.machine.clients_of(WorkerId(u64::from(MANY))),
        MANY as usize
    );
}

#[test]
fn ten_thousand_clients_of_one_worker_train_and_evaluate_task_by_task() {
    let mut config = config();
    config.evaluation = crate::round::EvaluationBy::Workers;
    let mut bench = Bench::planning(config, 1, MANY);
    bench.plan(R1, MANY, MANY as usize, 2);
    for client in 0..MANY {
        let task = bench.poll(W1, &[]).unwrap();
        assert_eq!(task.client, ClientId(client));
        bench.report(W1, task.client, R1);
    }
    assert_eq!(bench.poll(W1, &[]), None);
    let all: Vec<_> = (0..MANY).map(ClientId).collect();
    bench.aggregated_as(R1, &all, &[]);
    bench.published(1);
    for client in 0..MANY {
        let task = bench.poll(W1, &[]).unwrap();
        assert_eq!(task.client, ClientId(client));
        bench.share(W1, task.client, 1, Ok(measured(1.0)));
    }
    assert_eq!(bench.poll(W1, &[]), None);
}

#[test]
fn ten_thousand_clients_of_one_worker_evaluate() {
    let mut config = config();
    config.evaluation = crate::round::EvaluationBy::Workers;
    let mut bench = Bench::planning(config, 1, MANY);
    bench.plan(R1, 2, 2, 2);
    bench.commit(W1, R1);
    let mut commands = Vec::new();
    for client in 0..MANY {
        let evaluation = Ok(measured(1.0));
        commands = bench.share(W1, ClientId(client), 1, evaluation).1;
    }
    assert!(matches!(
        logged(&commands)[..],
        [crate::round::JobEvent::Evaluated { .. }]
    ));
    let is_planning = bench.phase() == "planning";
    assert!(is_planning && bench.send(Event::Tick) == Vec::<Command>::new());
}
