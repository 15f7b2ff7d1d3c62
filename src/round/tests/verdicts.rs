//! Every report gets one verdict, and its duplicate the same.

use super::bench::*;
use crate::{
    ids::{ClientId, RequestId, RoundId},
    report::RefusalKind,
    round::{Event, JobEvent, Response, machine::REMEMBERED_ROUNDS},
};

#[test]
fn an_accepted_report_stays_accepted_after_its_round_has_closed_too() {
    let mut bench = Bench::collecting(config(), 1, 2);
    bench.report(W1, C0, R1);
    assert_eq!(bench.offer(W1, C0, R1), Response::Accepted);
    bench.report(W1, C1, R1);
    assert_eq!(
        bench.offer(W1, C0, R1),
        Response::Accepted,
        "while it is folded"
    );
    bench.aggregated(R1);
    bench.published(1);
    assert_eq!(
        bench.offer(W1, C0, R1),
        Response::Accepted,
        "after the commit"
    );
    bench.plan(R2, 2, 2, 2);
    bench.lose(W1);
    assert_eq!(
        bench.offer(W1, C0, R1),
        Response::Accepted,
        "after the lease is gone"
    );
}

#[test]
fn a_refused_report_stays_refused_for_the_same_reason() {
    let mut bench = Bench::collecting(config(), 1, 4);
    let mut refusals = Vec::new();
    let upload = bench.begin(W1, C0, R1);
    refusals.push((
        C0,
        metadata(0),
        bench.store(upload, C0, R1, Err(RefusalKind::Malformed)).0,
    ));
    let mut greedy = metadata(0);
    greedy.examples = 11;
    refusals.push((C1, greedy.clone(), bench.offer_with(W1, C1, R1, greedy)));
    refusals.push((C2, metadata(1), bench.offer_with(W1, C2, R1, metadata(1))));
    let kinds: Vec<_> = refusals
        .iter()
        .map(|(_, _, response)| refused(response))
        .collect();
    assert_eq!(
        kinds,
        [
            RefusalKind::Malformed,
            RefusalKind::ExamplesExceeded,
            RefusalKind::Stale
        ]
    );
    for is_closed in [false, true] {
        if is_closed {
            bench.tick();
        }
        for (client, metadata, response) in &refusals {
            assert_eq!(
                bench.offer_with(W1, *client, R1, metadata.clone()),
                *response
            );
        }
    }
}

#[test]
fn verdicts_are_remembered_for_some_rounds_and_late_after_that() {
    let mut config = config();
    config.limits.max_attempts = 100;
    let mut bench = Bench::collecting(config, 1, 3);
    bench.report(W1, C0, R1);
    for round in 2..=REMEMBERED_ROUNDS as u64 {
        bench.tick();
        bench.plan(RoundId(round), 3, 3, 2);
    }
    bench.tick();
    assert_eq!(bench.offer(W1, C0, R1), Response::Accepted);
    bench.plan(RoundId(REMEMBERED_ROUNDS as u64 + 1), 3, 3, 2);
    bench.tick();
    assert_eq!(refused(&bench.offer(W1, C0, R1)), RefusalKind::Late);
}

#[test]
fn what_comes_after_the_close_is_late() {
    let mut bench = Bench::planning(config(), 1, 4);
    bench.plan(R1, 4, 2, 2);
    let upload = bench.begin(W1, C2, R1);
    bench.report(W1, C0, R1);
    bench.report(W1, C1, R1);
    let (response, commands) = bench.store(upload, C2, R1, Ok(()));
    assert_eq!(refused(&response), RefusalKind::Late);
    let logged = logged(&commands);
    assert!(matches!(
        logged[..],
        [JobEvent::ReportRefused {
            client: C2,
            worker: W1,
            ..
        }]
    ));
    assert_eq!(refused(&bench.offer(W1, C2, R1)), RefusalKind::Late);
    assert_eq!(
        refused(&bench.offer(W1, ClientId(3), R1)),
        RefusalKind::Late
    );
}

#[test]
fn a_second_upload_beside_the_first_is_a_duplicate_for_as_long_as_that_lasts() {
    let mut bench = Bench::collecting(config(), 1, 3);
    let upload = bench.begin(W1, C0, R1);
    assert_eq!(refused(&bench.offer(W1, C0, R1)), RefusalKind::Duplicate);
    let (response, commands) = bench.store(upload, C0, R1, Err(RefusalKind::Truncated));
    assert_eq!(refused(&response), RefusalKind::Truncated);
    assert_eq!(woken(&commands), [W1], "the task is open again");
    bench.report(W1, C0, R1);
    let (response, _) = bench.store(upload, C0, R1, Ok(()));
    assert_eq!(
        refused(&response),
        RefusalKind::Conflict,
        "it has ended already"
    );
    assert_eq!(bench.machine.status().accepted, 1);
}

#[test]
fn a_round_that_has_not_begun_takes_no_report() {
    let mut bench = Bench::new(config());
    assert_eq!(refused(&bench.offer(W1, C0, R1)), RefusalKind::WrongRound);
    let mut bench = Bench::planning(config(), 1, 2);
    assert_eq!(
        refused(&bench.offer(W1, C0, R1)),
        RefusalKind::WrongRound,
        "being planned"
    );
    bench.plan(R1, 2, 2, 2);
    for round in [RoundId(0), R2, RoundId(u64::MAX)] {
        assert_eq!(
            refused(&bench.offer(W1, C0, round)),
            RefusalKind::WrongRound
        );
        assert_eq!(
            refused(&bench.give_up(W1, C0, round).0),
            RefusalKind::WrongRound
        );
    }
}

#[test]
fn strangers_are_told_what_they_are() {
    let mut bench = Bench::planning(config(), 2, 3);
    bench.plan(R1, 2, 2, 2);
    // Worker 1 holds clients 0 and 2, worker 2 client 1.
    assert_eq!(refused(&bench.offer(W2, C0, R1)), RefusalKind::NotLeased);
    assert_eq!(
        refused(&bench.give_up(W2, C0, R1).0),
        RefusalKind::NotLeased
    );
    assert_eq!(refused(&bench.offer(W1, C2, R1)), RefusalKind::NotInCohort);
    assert_eq!(
        refused(&bench.give_up(W1, C2, R1).0),
        RefusalKind::NotInCohort
    );
    let nobody = ClientId(u32::MAX);
    assert_eq!(
        refused(&bench.offer(W1, nobody, R1)),
        RefusalKind::UnknownClient
    );
    assert_eq!(
        refused(&bench.give_up(W1, nobody, R1).0),
        RefusalKind::UnknownClient
    );
    let (response, _) = bench.store(RequestId(0), C0, R1, Ok(()));
    assert_eq!(refused(&response), RefusalKind::Conflict);
    assert_eq!(
        bench.offer(W1, C0, R1),
        Response::Admitted,
        "and nothing has changed"
    );
}

#[test]
fn a_stranger_cannot_fail_another_workers_client() {
    let mut bench = Bench::collecting(config(), 2, 2);
    let mut greedy = metadata(0);
    greedy.examples = 11;
    let response = bench.offer_with(W2, C0, R1, greedy);
    assert_eq!(refused(&response), RefusalKind::ExamplesExceeded);
    bench.report(W1, C0, R1);
}

#[test]
fn claims_that_cannot_be_true_end_the_clients_part() {
    let mut none = metadata(0);
    none.examples = 0;
    let mut not_a_number = metadata(0);
    not_a_number
        .metrics
        .insert("train_loss".to_string(), f64::NAN);
    for (claim, kind) in [
        (none, RefusalKind::ExamplesExceeded),
        (not_a_number, RefusalKind::Malformed),
    ] {
        let mut bench = Bench::collecting(config(), 1, 3);
        assert_eq!(refused(&bench.offer_with(W1, C0, R1, claim)), kind);
        bench.report(W1, C1, R1);
        let commands = bench.report(W1, C2, R1);
        assert_eq!(folded(&commands), Some(vec![C1, C2]), "nobody waits for it");
    }
}

#[test]
fn a_stale_report_leaves_the_task_open() {
    let mut bench = Bench::collecting(config(), 1, 2);
    assert_eq!(
        refused(&bench.offer_with(W1, C0, R1, metadata(7))),
        RefusalKind::Stale
    );
    bench.report(W1, C0, R1);
}

#[test]
fn giving_up_twice_is_answered_alike_and_counts_once() {
    let mut bench = Bench::collecting(config(), 1, 4);
    assert_eq!(logged(&bench.give_up(W1, C0, R1).1).len(), 1);
    let (response, commands) = bench.give_up(W1, C0, R1);
    assert_eq!((response, commands.len()), (Response::Accepted, 0));
    bench.lose(W1);
    assert_eq!(
        bench.give_up(W1, C0, R1).0,
        Response::Accepted,
        "without the lease too"
    );
    assert_eq!(refused(&bench.offer(W1, C0, R1)), RefusalKind::Conflict);
}

#[test]
fn giving_up_does_not_take_an_accepted_report_back() {
    let mut bench = Bench::collecting(config(), 1, 2);
    bench.report(W1, C0, R1);
    assert_eq!(bench.give_up(W1, C0, R1), (Response::Accepted, Vec::new()));
    assert_eq!(folded(&bench.report(W1, C1, R1)), Some(vec![C0, C1]));
}

#[test]
fn giving_up_ends_an_upload_under_way_with_the_true_reason() {
    let mut bench = Bench::collecting(config(), 1, 3);
    let upload = bench.begin(W1, C0, R1);
    bench.give_up(W1, C0, R1);
    let (response, _) = bench.store(upload, C0, R1, Ok(()));
    assert_eq!(refused(&response), RefusalKind::Conflict);
    assert_eq!(bench.machine.status().accepted, 0);
}

#[test]
fn reports_of_an_ended_job_are_answered_and_not_logged() {
    let mut bench = Bench::collecting(config(), 1, 3);
    bench.report(W1, C0, R1);
    let upload = bench.begin(W1, C1, R1);
    bench.cancel();
    let (response, commands) = bench.store(upload, C1, R1, Ok(()));
    assert_eq!((refused(&response), commands.len()), (RefusalKind::Late, 0));
    assert_eq!(bench.offer(W1, C0, R1), Response::Accepted);
    assert_eq!(refused(&bench.offer(W1, C2, R1)), RefusalKind::Late);
    assert_eq!(bench.poll(W1, &[]), None);
    assert!(bench.send(Event::Tick).is_empty());
}
