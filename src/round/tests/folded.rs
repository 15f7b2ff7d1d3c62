//! What a strategy folds and excludes: the quorum, the record, and the basis of each client.

use super::bench::*;
use crate::{
    ids::{ClientId, RoundId},
    round::{Command, Event, Excluded, JobEvent, Outcome, TaskKind},
    settings::TrainingSettings,
    strategy::RoundPlan,
};

/// Round 1 has a quorum of 2, and clients 0, 1 and 2 have reported: their reports are being folded.
fn aggregating() -> Bench {
    let mut bench = Bench::collecting(config(), 1, 3);
    for client in [C0, C1, C2] {
        bench.report(W1, client, R1);
    }
    assert_eq!(bench.phase(), "aggregating");
    bench
}

fn committed(commands: &[Command]) -> &JobEvent {
    let is_commit = |event: &&JobEvent| matches!(event, JobEvent::RoundCommitted { .. });
    let found = logged(commands).into_iter().find(is_commit);
    found.unwrap_or_else(|| panic!("no commit: {commands:?}"))
}

/// The basis of each client, as a strategy is shown it.
fn bases(commands: &[Command]) -> Vec<Option<RoundId>> {
    let planned = commands.iter().find_map(|command| match command {
        Command::Plan { clients, .. } => Some(clients.iter().map(|client| client.basis).collect()),
        _ => None,
    });
    planned.unwrap_or_else(|| panic!("nothing is planned: {commands:?}"))
}

/// The basis in the next task of worker 1, which must be client 0's.
fn basis_of_task(bench: &mut Bench) -> Option<RoundId> {
    let task = bench.poll(W1, &[]).expect("a task");
    assert_eq!(task.client, C0);
    match task.kind {
        TaskKind::Train { basis, .. } => basis,
        other => panic!("not a training: {other:?}"),
    }
}

#[test]
fn who_is_excluded_is_in_the_event_log_with_the_reason() {
    let mut bench = aggregating();
    bench.aggregated_as(R1, &[C0, C2], &[C1]);
    let commands = bench.published(1);
    let JobEvent::RoundCommitted {
        accepted,
        folded,
        excluded,
        train_loss,
        ..
    } = committed(&commands)
    else {
        unreachable!("it is a commit");
    };
    assert_eq!(accepted, &[C0, C1, C2]);
    assert_eq!(folded, &[C0, C2]);
    let reason = "client 1 is too far".to_string();
    assert_eq!(excluded, &[Excluded { client: C1, reason }]);
    assert_eq!(*train_loss, Some(0.25));
}

#[test]
fn the_quorum_counts_what_is_folded() {
    let mut bench = aggregating();
    let commands = bench.aggregated_as(R1, &[C2], &[C0, C1]);
    assert_eq!(
        abandoned(&commands),
        "1 of 3 accepted reports were folded, and the quorum is 2; 2 reports excluded, the first is of client 0: client 0 is \
         too far"
    );
    let left_out = logged(&commands).into_iter().find_map(|event| match event {
        JobEvent::RoundAbandoned { excluded, .. } => Some(excluded),
        _ => None,
    });
    let excluded = |client: ClientId| Excluded {
        client,
        reason: format!("client {client} is too far"),
    };
    assert_eq!(left_out.unwrap(), &[excluded(C0), excluded(C1)]);
    assert!(commands.contains(&Command::Discard { round: R1 }));
    assert_eq!(bases(&commands), [None, None, None]);
}

#[test]
fn an_aggregation_accounts_for_each_accepted_report_once() {
    let c3 = ClientId(3);
    let cases: [(&[ClientId], &[ClientId], &str); 6] = [
        (&[C0, C1, C2, c3], &[], "no report of client 3 was accepted"),
        (&[C0, C1, C2], &[c3], "no report of client 3 was accepted"),
        (
            &[C0, C2],
            &[],
            "it neither folds nor excludes client 1, whose report was accepted",
        ),
        (&[C0, C1, C2], &[C1], "it names client 1 more than once"),
        (&[C0, C0, C1, C2], &[], "it names client 0 more than once"),
        (&[C1, C0, C2], &[], "its clients are not in rising order"),
    ];
    for (folded, excluded, problem) in cases {
        let commands = aggregating().aggregated_as(R1, folded, excluded);
        let reason = abandoned(&commands);
        assert_eq!(
            reason,
            format!("the strategy's aggregation is not valid: {problem}")
        );
    }
}

#[test]
fn a_metric_that_json_can_not_carry_is_not_recorded() {
    let mut bench = aggregating();
    let mut aggregation = crate::strategy::Aggregation::new([C0, C1, C2], 30.0);
    for (name, value) in [("norm", 2.0), ("ratio", f64::NAN)] {
        aggregation.metrics.insert(name.to_string(), value);
    }
    bench.send(Event::Aggregated {
        round: R1,
        aggregation: Ok(aggregation),
        joules: 0.0,
    });
    let commands = bench.published(1);
    let JobEvent::RoundCommitted { metrics, .. } = committed(&commands) else {
        unreachable!("it is a commit");
    };
    assert_eq!(
        metrics.iter().collect::<Vec<_>>(),
        [(&"norm".to_string(), &2.0)]
    );
}

#[test]
fn a_training_loss_that_one_folded_client_lacks_has_no_mean() {
    let mut bench = Bench::collecting(config(), 1, 3);
    bench.report(W1, C0, R1);
    bench.report(W1, C1, R1);
    let mut silent = metadata(0);
    silent.metrics.clear();
    silent.examples = 5;
    let upload = bench.begin_with(W1, C2, R1, silent);
    bench.store(upload, C2, R1, Ok(()));
    bench.aggregated_as(R1, &[C0, C1, C2], &[]);
    let commands = bench.published(1);
    let JobEvent::RoundCommitted { train_loss, .. } = committed(&commands) else {
        unreachable!("it is a commit");
    };
    assert_eq!(*train_loss, None);
}

// The basis.

#[test]
fn a_commit_moves_the_basis_of_those_that_it_folded() {
    let mut bench = aggregating();
    bench.aggregated_as(R1, &[C0, C2], &[C1]);
    let commands = bench.published(1);
    assert_eq!(bases(&commands), [Some(R1), None, Some(R1)]);
    bench.plan(R2, 3, 3, 2);
    assert_eq!(basis_of_task(&mut bench), Some(R1));
}

#[test]
fn an_abandoned_round_moves_no_basis() {
    let mut bench = Bench::collecting(config(), 1, 3);
    bench.report(W1, C0, R1);
    let commands = bench.tick();
    abandoned(&commands);
    assert_eq!(bases(&commands), [None, None, None]);
    bench.plan(R2, 3, 3, 2);
    assert_eq!(basis_of_task(&mut bench), None);
    // Neither does one that fails after its fold.
    for client in [C0, C1, C2] {
        bench.report(W1, client, R2);
    }
    bench.aggregated_as(R2, &[C0, C1, C2], &[]);
    let commands = bench.send(Event::Published {
        version: crate::ids::ModelVersion(1),
        published: Err("the disk is full".to_string()),
    });
    assert_eq!(bases(&commands), [None, None, None]);
}

#[test]
fn a_basis_outlives_rounds_without_the_client_and_a_move_of_its_lease() {
    let mut bench = Bench::collecting(config(), 1, 3);
    for client in [C0, C1, C2] {
        bench.report(W1, client, R1);
    }
    bench.aggregated_as(R1, &[C0, C1, C2], &[]);
    bench.published(1);
    bench.plan(R2, 3, 3, 2);
    bench.report(W1, C1, R2);
    bench.report(W1, C2, R2);
    bench.lose(W1);
    bench.join(W2);
    let task = bench.poll(W2, &[]).expect("a task");
    assert_eq!(task.client, C0);
    assert!(matches!(
        task.kind,
        TaskKind::Train {
            basis: Some(R1),
            ..
        }
    ));
}

// Rounds that need no report.

fn plan_without_quorum(bench: &mut Bench, clients: &[ClientId]) -> Vec<Command> {
    let mut plan = RoundPlan::new(clients.iter().copied(), TrainingSettings::default());
    plan.quorum = 0;
    bench.send(Event::Planned {
        round: R1,
        plan: Ok(plan),
    })
}

#[test]
fn a_round_that_asks_nobody_closes_at_once_and_commits() {
    let mut bench = Bench::planning(config(), 1, 3);
    let commands = plan_without_quorum(&mut bench, &[]);
    assert_eq!(folded(&commands), Some(Vec::new()));
    bench.aggregated_as(R1, &[], &[]);
    let commands = bench.published(1);
    let JobEvent::RoundCommitted {
        accepted,
        train_loss,
        ..
    } = committed(&commands)
    else {
        unreachable!("it is a commit");
    };
    assert!(accepted.is_empty() && train_loss.is_none());
}

#[test]
fn a_round_without_a_quorum_waits_for_its_goal_and_commits_with_what_has_come() {
    let mut bench = Bench::planning(config(), 1, 3);
    plan_without_quorum(&mut bench, &[C0, C1]);
    assert_eq!(bench.phase(), "collecting");
    let commands = bench.tick();
    assert_eq!(folded(&commands), Some(Vec::new()));
    let mut bench = Bench::planning(config(), 1, 3);
    plan_without_quorum(&mut bench, &[C0, C1]);
    bench.report(W1, C1, R1);
    bench.tick();
    // Even with all of it excluded.
    bench.aggregated_as(R1, &[], &[C1]);
    committed(&bench.published(1));
    assert_ne!(bench.machine.outcome(), Some(&Outcome::Completed));
}
