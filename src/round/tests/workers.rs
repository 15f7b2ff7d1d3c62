//! Workers come, go and ask for tasks.

use super::bench::*;
use crate::{
    ids::{ClientId, ModelVersion, WorkerId},
    report::{RefusalKind, ReportMetadata},
    round::{ClientSpec, Command, Event, JobEvent, Response, Task, TaskKind},
};

const W3: WorkerId = WorkerId(3);

fn leased(client: ClientId, from: WorkerId, to: Option<WorkerId>) -> JobEvent {
    let from = Some(from);
    JobEvent::Leased { client, from, to }
}

#[test]
fn a_worker_is_given_each_of_its_tasks_once() {
    let mut bench = Bench::collecting(config(), 1, 2);
    let first = bench.poll(W1, &[]).unwrap();
    assert_eq!(
        (first.client, first.round, first.version),
        (C0, R1, ModelVersion(0))
    );
    let TaskKind::Train { deadline, .. } = first.kind else {
        panic!("{first:?}");
    };
    assert_eq!(Some(deadline), bench.machine.poll_deadline());
    let second = bench.poll(W1, std::slice::from_ref(&first)).unwrap();
    assert_eq!(second.client, C1);
    assert_eq!(bench.poll(W1, &[first, second]), None);
}

#[test]
fn a_task_whose_answer_was_lost_is_given_again_and_logged_once() {
    let mut bench = Bench::collecting(config(), 1, 2);
    let task = bench.poll(W1, &[]).unwrap();
    assert_eq!(bench.poll(W1, &[]), Some(task));
    let event = |request| crate::round::Event::TaskRequested {
        request,
        worker: W1,
        busy: vec![],
    };
    let (_, commands) = bench.request(event);
    assert!(commands.is_empty(), "{commands:?}");
}

#[test]
fn no_task_is_given_while_its_report_is_on_the_way_or_in() {
    let mut bench = Bench::collecting(config(), 1, 2);
    let upload = bench.begin(W1, C0, R1);
    assert_eq!(bench.poll(W1, &[]).unwrap().client, C1);
    bench.store(upload, C0, R1, Ok(()));
    assert_eq!(bench.poll(W1, &[]).unwrap().client, C1);
    bench.give_up(W1, C1, R1);
    assert_eq!(bench.poll(W1, &[]), None);
}

#[test]
fn nobody_has_a_task_outside_of_a_round() {
    let mut bench = Bench::planning(config(), 1, 2);
    assert_eq!(bench.poll(W1, &[]), None);
    let commands = bench.plan(R1, 2, 2, 2);
    assert_eq!(woken(&commands), [W1]);
    assert_eq!(bench.poll(W2, &[]), None, "a worker that nobody knows");
}

#[test]
fn a_lost_workers_clients_go_to_the_others_in_the_same_round() {
    let mut bench = Bench::collecting(config(), 2, 3);
    let task = bench.poll(W1, &[]).unwrap();
    let upload = bench.begin(W1, C0, R1);
    bench.report(W1, C2, R1);
    let commands = bench.lose(W1);
    let moved = [C0, C2].map(|client| leased(client, W1, Some(W2)));
    assert_eq!(logged(&commands), [&moved[0], &moved[1]]);
    assert_eq!(woken(&commands), [W2], "once");
    assert!(!bench.machine.wants(W1, &task));
    // The upload that was under way is overtaken, and what is in stays in.
    let again = bench.poll(W2, &[]).unwrap();
    assert_eq!((again.client, bench.machine.wants(W2, &again)), (C0, true));
    let (response, _) = bench.store(upload, C0, R1, Ok(()));
    assert_eq!(refused(&response), RefusalKind::NotLeased);
    assert_eq!(refused(&bench.offer(W1, C0, R1)), RefusalKind::NotLeased);
    assert_eq!(refused(&bench.offer(W2, C2, R1)), RefusalKind::NotLeased);
    bench.report(W2, C0, R1);
    assert_eq!(folded(&bench.report(W2, C1, R1)), Some(vec![C0, C1, C2]));
}

#[test]
fn a_late_worker_gets_its_part_with_the_next_round() {
    let mut bench = Bench::collecting(config(), 1, 4);
    assert!(logged(&bench.join(W2)).is_empty());
    assert_eq!(bench.machine.clients_of(W2), 0);
    assert_eq!(woken(&bench.tick()), [], "the round is being planned");
    assert_eq!(bench.machine.clients_of(W2), 2);
    assert_eq!(woken(&bench.plan(R2, 4, 4, 2)), [W1, W2]);
    assert_eq!(bench.machine.lease(ClientId(3)), Some(W2));
}

#[test]
fn a_worker_that_joins_twice_changes_nothing() {
    let mut bench = Bench::collecting(config(), 2, 4);
    let task = bench.poll(W1, &[]).unwrap();
    assert!(bench.join(W1).is_empty());
    assert!(bench.machine.wants(W1, &task));
    let mut config = config();
    config.limits.min_workers = 2;
    let mut bench = Bench::new(config);
    bench.join(W1);
    bench.join(W1);
    assert_eq!(bench.phase(), "waiting", "it is still one worker");
}

#[test]
fn clients_without_a_worker_wait_for_the_next_one() {
    let mut bench = Bench::collecting(config(), 1, 2);
    let upload = bench.begin(W1, C0, R1);
    let commands = bench.lose(W1);
    assert!(logged(&commands).contains(&&leased(C0, W1, None)));
    let commands = bench.join(W2);
    assert_eq!(woken(&commands), [W2]);
    bench.report(W2, C0, R1);
    let (response, _) = bench.store(upload, C0, R1, Ok(()));
    assert_eq!(refused(&response), RefusalKind::NotLeased);
    assert_eq!(folded(&bench.report(W2, C1, R1)), Some(vec![C0, C1]));
}

#[test]
fn a_report_counts_once_though_its_worker_went_and_came_back_meanwhile() {
    let mut bench = Bench::collecting(config(), 1, 2);
    let overtaken = bench.begin(W1, C0, R1);
    bench.lose(W1);
    bench.join(W1);
    bench.report(W1, C0, R1);
    let (response, commands) = bench.store(overtaken, C0, R1, Ok(()));
    assert_eq!(
        (response, commands),
        (Response::Accepted, Vec::new()),
        "by the other upload"
    );
    assert_eq!(bench.machine.status().accepted, 1);
}

#[test]
fn a_worker_that_goes_while_the_round_is_planned_or_prepared_is_no_trouble() {
    let mut bench = Bench::planning(config(), 2, 2);
    bench.lose(W1);
    let commands = bench.plan(R1, 2, 2, 2);
    assert_eq!(woken(&commands), [W2]);
    bench.commit(W2, R1);
    let mut bench = Bench::planning_at_home(config(), 3);
    bench.lose(W1);
    let commands = bench.plan(R1, 3, 3, 2);
    let failed = |event: &&JobEvent| matches!(event, JobEvent::ClientFailed { client: C0, .. });
    assert_eq!(
        logged(&commands)
            .iter()
            .filter(|event| failed(event))
            .count(),
        1
    );
    bench.report(W2, C1, R1);
    assert_eq!(folded(&bench.report(W3, C2, R1)), Some(vec![C1, C2]));
}

#[test]
fn data_that_goes_with_its_worker_drops_out_of_the_round() {
    let mut bench = Bench::planning_at_home(config(), 3);
    bench.plan(R1, 3, 3, 2);
    let upload = bench.begin(W1, C0, R1);
    bench.report(W2, C1, R1);
    let commands = bench.lose(W1);
    assert_eq!(bench.machine.lease(C0), None);
    let failed = |event: &&JobEvent| matches!(event, JobEvent::ClientFailed { client: C0, .. });
    assert!(logged(&commands).iter().any(failed));
    let (response, _) = bench.store(upload, C0, R1, Ok(()));
    assert_eq!(refused(&response), RefusalKind::Late);
    // It comes back in time, and has to wait for the next round.
    bench.join(W1);
    assert_eq!(bench.machine.lease(C0), Some(W1));
    assert_eq!(bench.poll(W1, &[]), None);
    assert_eq!(refused(&bench.offer(W1, C0, R1)), RefusalKind::Late);
    let commands = bench.report(W3, C2, R1);
    assert_eq!(folded(&commands), Some(vec![C1, C2]));
}

#[test]
fn data_that_is_gone_does_not_undo_its_report() {
    let mut bench = Bench::planning_at_home(config(), 2);
    bench.plan(R1, 2, 2, 2);
    bench.report(W1, C0, R1);
    bench.lose(W1);
    assert_eq!(folded(&bench.report(W2, C1, R1)), Some(vec![C0, C1]));
}

#[test]
fn a_worker_that_comes_back_as_another_has_its_data_again() {
    let mut bench = Bench::planning_at_home(config(), 2);
    bench.plan(R1, 2, 2, 2);
    // It registers again before it was missed under its old name.
    bench.join_as(W3, Some(W1));
    assert_eq!(bench.machine.lease(C0), Some(W1));
    let commands = bench.lose(W1);
    assert_eq!(logged(&commands), [&leased(C0, W1, Some(W3))]);
    bench.report(W3, C0, R1);
    assert_eq!(folded(&bench.report(W2, C1, R1)), Some(vec![C0, C1]));
}

#[test]
fn only_what_would_still_be_taken_is_wanted() {
    let mut bench = Bench::collecting(config(), 1, 3);
    let task = bench.poll(W1, &[]).unwrap();
    let of_another_round = Task {
        round: R2,
        ..task.clone()
    };
    assert!(bench.machine.wants(W1, &task));
    assert!(!bench.machine.wants(W2, &task) && !bench.machine.wants(W1, &of_another_round));
    let upload = bench.begin(W1, C0, R1);
    assert!(bench.machine.wants(W1, &task), "its report is on the way");
    bench.store(upload, C0, R1, Ok(()));
    assert!(!bench.machine.wants(W1, &task), "its report is in");
    let task = bench.poll(W1, &[]).unwrap();
    bench.tick();
    assert!(!bench.machine.wants(W1, &task), "the round is over");
}

#[test]
fn a_long_list_of_tasks_at_hand_is_no_trouble() {
    let mut bench = Bench::collecting(config(), 1, 3);
    let task = bench.poll(W1, &[]).unwrap();
    let busy: Vec<_> = (0..200_000)
        .map(|client| Task {
            client: ClientId(client),
            ..task.clone()
        })
        .collect();
    assert_eq!(bench.poll(W1, &busy), None);
    assert_eq!(bench.poll(W1, &busy[1..]), Some(task));
}

#[test]
fn a_job_with_fewer_clients_than_its_goal_fails_at_once() {
    let mut config = config();
    config.limits.goal = Some(3);
    let bench = Bench::planning(config.clone(), 1, 2);
    assert_eq!(
        bench.detail(),
        "the job has 2 clients, and its goal is 3 reports"
    );
    let bench = Bench::planning(config, 1, 3);
    assert_eq!(bench.phase(), "planning");
}

#[test]
fn a_job_with_too_few_clients_for_its_quorum_fails_at_once() {
    let bench = Bench::planning(config(), 1, 1);
    assert_eq!(bench.detail(), "the job has 1 client, and its quorum is 2");
    assert_eq!(bench.phase(), "failed");
}

#[test]
fn clients_are_dealt_when_the_job_starts() {
    let mut bench = Bench::new(config());
    let commands = bench.join(W1);
    assert!(matches!(commands[..], [Command::Prepare { .. }]));
    let bench = Bench::planning(config(), 2, 5);
    assert_eq!(
        (bench.machine.clients_of(W1), bench.machine.clients_of(W2)),
        (3, 2)
    );
}

#[test]
fn a_lease_wakes_its_worker_once_there_is_a_task() {
    let mut bench = Bench::new(config());
    bench.join(W1);
    let spec = ClientSpec {
        examples: 10,
        home: None,
    };
    let commands = bench.send(Event::Prepared(Ok(vec![spec; 2])));
    assert_eq!(woken(&commands), [], "no round has begun");
    assert_eq!(woken(&bench.plan(R1, 2, 2, 2)), [W1]);
}

#[test]
fn a_worker_that_returns_with_more_or_fewer_examples_counts_for_what_it_has_now() {
    for examples in [25, 5] {
        let mut bench = Bench::planning_at_home(config(), 2);
        bench.lose(W2);
        bench.join_as(W3, Some(W2));
        let worker = W3;
        let commands = bench.send(Event::DataResized { worker, examples });
        let client = C1;
        let resized = JobEvent::DataResized { client, examples };
        assert_eq!(logged(&commands), [&resized]);
        let population = bench.machine.population();
        let sizes: Vec<_> = population.iter().map(|client| client.examples).collect();
        assert_eq!(sizes, [10, examples]);
        bench.plan(R1, 2, 2, 2);
        let claim = |examples| ReportMetadata {
            examples,
            ..metadata(0)
        };
        let too_many = bench.offer_with(W3, C1, R1, claim(examples + 1));
        assert_eq!(refused(&too_many), RefusalKind::ExamplesExceeded);
    }
}

#[test]
fn data_that_grows_while_the_round_is_open_counts_in_that_round() {
    let mut bench = Bench::planning_at_home(config(), 2);
    bench.plan(R1, 2, 2, 2);
    let (worker, examples) = (W2, 25);
    bench.send(Event::DataResized { worker, examples });
    let all = ReportMetadata {
        examples,
        ..metadata(0)
    };
    assert_eq!(bench.offer_with(W2, C1, R1, all), Response::Admitted);
}

/// Three workers with a client each that is pinned to it.
fn pinned() -> Bench {
    let config = crate::round::MachineConfig {
        pinned: true,
        evaluation: crate::round::EvaluationBy::Workers,
        ..config()
    };
    let mut bench = Bench::planning_at_home(config, 3);
    bench.plan(R1, 3, 3, 2);
    bench
}

#[test]
fn a_pinned_client_drops_out_with_its_worker_and_comes_back_with_it_or_its_heir() {
    let mut bench = pinned();
    let commands = bench.lose(W1);
    assert!(logged(&commands).contains(&&leased(C0, W1, None)));
    let failed = logged(&commands).into_iter().find_map(|event| match event {
        JobEvent::ClientFailed { client, reason, .. } => Some((*client, reason.clone())),
        _ => None,
    });
    assert_eq!(
        failed.unwrap(),
        (C0, "the worker that it is pinned to is gone".to_string())
    );
    assert_eq!(bench.machine.lease(C0), None);
    bench.join(WorkerId(4));
    assert_eq!(
        (
            bench.machine.lease(C0),
            bench.machine.clients_of(WorkerId(4))
        ),
        (None, 0)
    );
    assert!(bench.machine.is_home(W1) && !bench.machine.is_home(WorkerId(4)));
    bench.join(W1);
    assert_eq!(bench.machine.lease(C0), Some(W1));
    bench.lose(W1);
    bench.join_as(WorkerId(5), Some(W1));
    assert_eq!(bench.machine.lease(C0), Some(WorkerId(5)));
    assert!(bench.machine.is_home(WorkerId(5)) && !bench.machine.is_home(W1));
}
