//! When a round begins, commits and is abandoned.

use std::collections::BTreeMap;

use super::bench::*;
use crate::{
    ids::{ClientId, ModelVersion, RoundId, WorkerId},
    report::RefusalKind,
    round::{Command, Event, JobEvent, MachineConfig, Outcome, Response},
};

#[test]
fn a_job_goes_from_its_first_worker_to_its_last_version() {
    let mut bench = Bench::new(config());
    assert_eq!(bench.phase(), "waiting");
    let commands = bench.join(W1);
    let workers = vec![(W1, 1)];
    assert!(commands.contains(&Command::Prepare { workers }));
    assert_eq!(bench.phase(), "preparing");
    let mut bench = Bench::planning(config(), 1, 2);
    for (round, version) in [(1, 1), (2, 2)] {
        let round = RoundId(round);
        bench.plan(round, 2, 2, 2);
        bench.report(W1, C1, round);
        let commands = bench.report(W1, C0, round);
        assert_eq!(folded(&commands), Some(vec![C0, C1]), "in client order");
        assert_eq!(bench.phase(), "aggregating");
        let commands = bench.aggregated(round);
        let version = ModelVersion(version);
        assert_eq!(commands, [Command::Publish { round, version }]);
        assert_eq!(
            bench.machine.status().version.0,
            version.0 - 1,
            "not yet published"
        );
        let commands = bench.published(version.0);
        let committed = JobEvent::RoundCommitted {
            round,
            version,
            accepted: vec![C0, C1],
            folded: vec![C0, C1],
            excluded: Vec::new(),
            train_loss: Some(0.25),
            metrics: BTreeMap::from([("norm".to_string(), 0.25)]),
        };
        assert!(logged(&commands).contains(&&committed));
        assert!(commands.contains(&Command::Discard { round }));
        assert_eq!(bench.machine.status().version, version);
    }
    assert_eq!(bench.machine.outcome(), Some(&Outcome::Completed));
}

#[test]
fn a_round_commits_at_its_goal_and_waits_for_no_more() {
    let mut bench = Bench::planning(config(), 1, 3);
    bench.plan(R1, 3, 2, 2);
    assert_eq!(folded(&bench.report(W1, C2, R1)), None);
    assert_eq!(folded(&bench.report(W1, C0, R1)), Some(vec![C0, C2]));
}

#[test]
fn a_round_commits_at_its_deadline_with_a_quorum() {
    let mut bench = Bench::collecting(config(), 1, 3);
    bench.report(W1, C0, R1);
    bench.report(W1, C2, R1);
    bench.wait(59);
    assert_eq!(folded(&bench.send(Event::Tick)), None);
    bench.wait(1);
    assert_eq!(folded(&bench.send(Event::Tick)), Some(vec![C0, C2]));
}

#[test]
fn below_the_quorum_a_round_is_abandoned_at_its_deadline_and_tried_again() {
    let mut bench = Bench::collecting(config(), 1, 3);
    bench.report(W1, C0, R1);
    let commands = bench.tick();
    let reason = abandoned(&commands);
    assert_eq!(
        reason,
        "the deadline has passed (reports accepted: 1, needed: 2)"
    );
    assert!(commands.contains(&Command::Discard { round: R1 }));
    let plans = |command: &Command| matches!(command, Command::Plan { round, version: ModelVersion(0), .. } if *round == R2);
    assert!(
        commands.iter().any(plans),
        "from the same version, under a new number"
    );
}

#[test]
fn the_deadline_holds_though_the_tick_is_late() {
    let mut bench = Bench::collecting(config(), 1, 3);
    bench.report(W1, C0, R1);
    let upload = bench.begin(W1, C1, R1);
    bench.wait(60);
    let (response, commands) = bench.store(upload, C1, R1, Ok(()));
    assert_eq!(refused(&response), RefusalKind::Late);
    abandoned(&commands);
}

#[test]
fn attempts_are_bounded_and_the_job_then_fails_with_the_last_reason() {
    let mut bench = Bench::collecting(config(), 1, 3);
    bench.tick();
    bench.plan(R2, 3, 3, 2);
    bench.tick();
    bench.plan(RoundId(3), 3, 3, 2);
    bench.report(W1, C0, RoundId(3));
    bench.tick();
    let Some(Outcome::Failed { reason }) = bench.machine.outcome() else {
        panic!("{}", bench.phase());
    };
    assert_eq!(
        reason,
        "attempt 3 of 3 was abandoned: the deadline has passed (reports accepted: 1, needed: 2)"
    );
}

#[test]
fn a_commit_begins_the_count_of_attempts_anew() {
    let mut bench = Bench::collecting(config(), 1, 2);
    bench.tick();
    bench.plan(R2, 2, 2, 2);
    bench.tick();
    bench.plan(RoundId(3), 2, 2, 2);
    bench.commit(W1, RoundId(3));
    for round in [4, 5] {
        bench.plan(RoundId(round), 2, 2, 2);
        bench.tick();
        assert_eq!(bench.phase(), "planning");
    }
}

#[test]
fn when_everyone_has_answered_or_failed_nobody_is_waited_for() {
    let mut bench = Bench::collecting(config(), 1, 3);
    bench.report(W1, C0, R1);
    bench.report(W1, C1, R1);
    let (response, commands) = bench.give_up(W1, C2, R1);
    assert_eq!(response, Response::Accepted);
    assert_eq!(folded(&commands), Some(vec![C0, C1]));
    let failed = |event: &&JobEvent| matches!(event, JobEvent::ClientFailed { client: C2, .. });
    assert!(logged(&commands).into_iter().any(|event| failed(&event)));
}

#[test]
fn a_quorum_that_is_out_of_reach_is_not_waited_for() {
    let mut bench = Bench::collecting(config(), 1, 3);
    bench.give_up(W1, C0, R1);
    let (_, commands) = bench.give_up(W1, C1, R1);
    assert!(
        abandoned(&commands)
            .starts_with("too many clients have failed (reports accepted: 0, needed: 2)")
    );
    assert_eq!(bench.phase(), "planning");
}

#[test]
fn a_report_that_cannot_be_decoded_holds_nobody_up() {
    let mut bench = Bench::collecting(config(), 1, 3);
    bench.report(W1, C0, R1);
    bench.report(W1, C1, R1);
    let upload = bench.begin(W1, C2, R1);
    let (response, commands) = bench.store(upload, C2, R1, Err(RefusalKind::Malformed));
    assert_eq!(refused(&response), RefusalKind::Malformed);
    assert_eq!(folded(&commands), Some(vec![C0, C1]));
}

#[test]
fn what_the_strategy_plans_is_checked() {
    let no_plan = |bench: &mut Bench| {
        bench.send(Event::Planned {
            round: R1,
            plan: Err("no idea".to_string()),
        })
    };
    assert_eq!(
        abandoned(&no_plan(&mut Bench::planning(config(), 1, 3))),
        "no idea"
    );
    for (cohort, goal, quorum, problem) in [
        (4, 3, 2, "the cohort has a client that the job has not"),
        (3, 4, 2, "the goal is above the cohort"),
        (3, 3, 1, "the quorum is below the job's"),
        (3, 2, 3, "the quorum is above the goal"),
        (
            0,
            0,
            2,
            "the cohort is empty, and only a plan with quorum 0 can do without reports",
        ),
        (
            3,
            0,
            0,
            "the goal is 0, so no client of the cohort could report",
        ),
    ] {
        let commands = Bench::planning(config(), 1, 3).plan(R1, cohort, goal, quorum);
        assert!(
            abandoned(&commands).ends_with(problem),
            "{}",
            abandoned(&commands)
        );
    }
}

#[test]
fn a_fold_or_a_store_that_fails_abandons_the_round_and_keeps_the_version() {
    let mut bench = Bench::collecting(config(), 1, 2);
    bench.report(W1, C0, R1);
    bench.report(W1, C1, R1);
    let aggregation = Err("not finite".to_string());
    let commands = bench.send(Event::Aggregated {
        round: R1,
        aggregation,
        joules: 0.0,
    });
    assert_eq!(abandoned(&commands), "not finite");
    bench.plan(R2, 2, 2, 2);
    bench.report(W1, C0, R2);
    bench.report(W1, C1, R2);
    bench.aggregated(R2);
    let published = Err("the disk is full".to_string());
    let commands = bench.send(Event::Published {
        version: ModelVersion(1),
        published,
    });
    assert_eq!(abandoned(&commands), "the disk is full");
    assert!(commands.contains(&Command::Discard { round: R2 }));
    assert_eq!(bench.machine.status().version, ModelVersion(0));
}

#[test]
fn the_end_of_an_earlier_rounds_work_changes_nothing() {
    let mut bench = Bench::collecting(config(), 1, 2);
    bench.tick();
    assert!(
        bench.plan(R1, 2, 2, 2).is_empty(),
        "round 2 is being planned"
    );
    bench.plan(R2, 2, 2, 2);
    assert!(bench.plan(R2, 1, 1, 1).is_empty(), "planned already");
    assert!(bench.aggregated(R2).is_empty(), "not closed");
    bench.report(W1, C0, R2);
    bench.report(W1, C1, R2);
    assert!(bench.aggregated(R1).is_empty());
    assert!(bench.published(1).is_empty(), "not aggregated");
    bench.aggregated(R2);
    assert!(bench.published(2).is_empty(), "no version is skipped");
    assert_eq!(bench.phase(), "publishing");
}

#[test]
fn a_round_waits_for_enough_clients_a_bounded_time() {
    let mut bench = Bench::collecting(config(), 1, 2);
    bench.lose(W1);
    assert!(
        bench.detail().contains("2 clients have no live worker"),
        "{}",
        bench.detail()
    );
    let commands = bench.tick();
    abandoned(&commands);
    assert_eq!(bench.phase(), "gathering");
    let waiting = "waiting for clients: 0 of at least 2 have a live worker";
    assert_eq!(bench.detail(), waiting);
    assert!(logged(&commands).contains(&&JobEvent::Waiting {
        reason: waiting.to_string()
    }));
    let commands = bench.join(W2);
    assert!(matches!(
        commands.last(),
        Some(Command::Plan { round: R2, .. })
    ));
    bench.lose(W2);
    bench.plan(R2, 2, 2, 2);
    bench.tick();
    bench.tick();
    let reason = format!("after 60 s still {waiting}");
    assert_eq!(bench.machine.outcome(), Some(&Outcome::Failed { reason }));
}

#[test]
fn a_worker_that_is_not_enough_does_not_prolong_the_wait() {
    let mut bench = Bench::planning_at_home(config(), 2);
    bench.plan(R1, 2, 2, 2);
    bench.lose(W1);
    assert_eq!(bench.phase(), "gathering");
    let deadline = bench.machine.poll_deadline();
    bench.wait(30);
    assert!(bench.join(WorkerId(3)).is_empty());
    assert_eq!(
        (bench.phase(), bench.machine.poll_deadline()),
        ("gathering", deadline)
    );
}

#[test]
fn a_strategy_is_shown_the_clients_that_can_take_part() {
    let mut bench = Bench::planning_at_home(config(), 4);
    bench.plan(R1, 4, 4, 2);
    bench.lose(W2);
    let commands = bench.tick();
    let shown = commands.iter().find_map(|command| match command {
        Command::Plan { clients, .. } => Some(clients.iter().map(|client| client.id).collect()),
        _ => None,
    });
    assert_eq!(shown, Some(vec![C0, C2, ClientId(3)]));
}

// Dealing again.

/// A job whose data may be dealt again, of three clients; round 1 is about to begin.
fn dealing() -> Bench {
    let config = MachineConfig {
        deals: true,
        ..config()
    };
    Bench::planning(config, 1, 3)
}

fn deal(bench: &mut Bench, round: RoundId, examples: Option<Vec<u64>>) -> Vec<Command> {
    bench.send(Event::Dealt { round, examples })
}

fn planned_sizes(commands: &[Command]) -> Option<Vec<u64>> {
    commands.iter().find_map(|command| match command {
        Command::Plan { clients, .. } => {
            Some(clients.iter().map(|client| client.examples).collect())
        }
        _ => None,
    })
}

#[test]
fn the_strategy_plans_with_the_sizes_that_were_dealt_before_the_round() {
    let mut bench = dealing();
    assert_eq!(bench.phase(), "dealing");
    assert_eq!(bench.machine.poll_deadline(), None);
    let commands = deal(&mut bench, R1, Some(vec![5, 20, 5]));
    assert_eq!(planned_sizes(&commands), Some(vec![5, 20, 5]));
    let entry = JobEvent::Dealt {
        round: R1,
        examples: vec![5, 20, 5],
    };
    assert!(logged(&commands).contains(&&entry));
    bench.plan(R1, 3, 2, 2);
    // While the round is open the sizes stay what they are.
    deal(&mut bench, R1, Some(vec![10, 10, 10]));
    deal(&mut bench, R2, Some(vec![10, 10, 10]));
    let ten = bench.offer(W1, C0, R1);
    assert_eq!(refused(&ten), RefusalKind::ExamplesExceeded);
    bench.begin(W1, C1, R1);
}

#[test]
fn sizes_that_do_not_fit_the_clients_are_passed_over() {
    for sizes in [None, Some(vec![15, 15]), Some(vec![30, 0, 0]), Some(vec![])] {
        let mut bench = dealing();
        let commands = deal(&mut bench, R1, sizes);
        assert_eq!(planned_sizes(&commands), Some(vec![10, 10, 10]));
        assert!(logged(&commands).is_empty(), "{commands:?}");
    }
}

#[test]
fn a_verdict_on_an_earlier_round_does_not_change_when_the_data_is_dealt_anew() {
    let mut bench = dealing();
    deal(&mut bench, R1, None);
    bench.plan(R1, 3, 2, 2);
    let commands = bench.commit(W1, R1);
    let asked = |command: &Command| *command == Command::Deal { round: R2 };
    assert!(commands.iter().any(asked), "{commands:?}");
    deal(&mut bench, R2, Some(vec![1, 28, 1]));
    // Ten examples are more than client 0 has by now, and were right in round 1.
    assert_eq!(bench.offer(W1, C0, R1), Response::Accepted);
}

#[test]
fn workers_that_go_while_the_data_is_dealt_leave_the_job_to_gather() {
    let mut bench = dealing();
    bench.lose(W1);
    assert_eq!(bench.phase(), "dealing");
    deal(&mut bench, R1, Some(vec![5, 20, 5]));
    assert_eq!(bench.phase(), "gathering");
    bench.join(W2);
    assert_eq!(bench.phase(), "dealing");
    let commands = deal(&mut bench, R1, None);
    assert_eq!(planned_sizes(&commands), Some(vec![5, 20, 5]));
}
