//! How a job ends: completed elsewhere, failed and cancelled here.

use super::bench::*;
use crate::{
    ids::{ModelVersion, RequestId, RoundId},
    report::RefusalKind,
    round::{Command, EvaluationBy, Event, JobEvent, MachineConfig, Outcome, Response},
    settings::EvalSplit,
};

fn failure(bench: &Bench) -> &str {
    match bench.machine.outcome() {
        Some(Outcome::Failed { reason }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_enough_workers_it_fails_and_says_what_it_waited_for() {
    let mut config = config();
    config.limits.min_workers = 2;
    let mut bench = Bench::new(config);
    bench.join(W1);
    assert_eq!(
        bench.detail(),
        "waiting for workers: 1 of at least 2 are there"
    );
    bench.wait(119);
    assert!(bench.send(Event::Tick).is_empty());
    bench.wait(1);
    let commands = bench.send(Event::Tick);
    let reason = "after 120 s still waiting for workers: 1 of at least 2 are there";
    assert_eq!(failure(&bench), reason);
    let outcome = Outcome::Failed {
        reason: reason.to_string(),
    };
    assert_eq!(
        commands,
        [
            Command::Log(JobEvent::Ended(outcome.clone())),
            Command::End(outcome)
        ]
    );
}

#[test]
fn a_worker_that_comes_with_the_deadline_is_in_time() {
    let mut bench = Bench::new(config());
    bench.wait(120);
    bench.join(W1);
    assert_eq!(bench.phase(), "preparing");
}

#[test]
fn what_cannot_be_prepared_fails_with_the_reason() {
    for (prepared, reason) in [
        (Err("no such dataset".to_string()), "no such dataset"),
        (Ok(Vec::new()), "the job has 0 clients, and its quorum is 2"),
    ] {
        let mut bench = Bench::new(config());
        bench.join(W1);
        bench.send(Event::Prepared(prepared));
        assert_eq!(failure(&bench), reason);
    }
}

/// A job in each phase, with the rounds whose reports a cancel has to have forgotten.
fn in_each_phase() -> Vec<(Bench, bool)> {
    let by_driver = || MachineConfig {
        evaluation: EvaluationBy::Driver,
        ..config()
    };
    let waiting = Bench::new(config());
    let mut preparing = Bench::new(config());
    preparing.join(W1);
    let planning = Bench::planning(config(), 1, 2);
    let mut gathering = Bench::collecting(config(), 1, 2);
    gathering.lose(W1);
    gathering.tick();
    let mut collecting = Bench::collecting(by_driver(), 1, 3);
    collecting.report(W1, C0, R1);
    collecting.begin(W1, C1, R1);
    let closed = || {
        let mut bench = Bench::collecting(config(), 1, 2);
        bench.report(W1, C0, R1);
        bench.report(W1, C1, R1);
        bench
    };
    let aggregating = closed();
    let mut publishing = closed();
    publishing.aggregated(R1);
    let mut finishing = Bench::collecting(by_driver(), 1, 2);
    finishing.commit(W1, R1);
    finishing.plan(R2, 2, 2, 2);
    finishing.commit(W1, R2);
    vec![
        (waiting, false),
        (preparing, false),
        (gathering, false),
        (planning, false),
        (collecting, true),
        (aggregating, true),
        (publishing, true),
        (finishing, false),
    ]
}

#[test]
fn it_can_be_cancelled_in_every_phase_and_what_ends_later_is_dropped() {
    let mut phases = Vec::new();
    for (mut bench, has_reports) in in_each_phase() {
        phases.push(bench.phase());
        let version = bench.machine.status().version;
        let (response, commands) = bench.cancel();
        assert_eq!(response, Response::Accepted);
        let mut expected = Vec::new();
        if phases.last() == Some(&"collecting") {
            let upload = RequestId(3);
            expected.push(Command::EndUpload { upload });
        }
        if has_reports {
            expected.push(Command::Discard { round: R1 });
        }
        if phases.last() == Some(&"finishing") {
            for version in [1, 2] {
                expected.push(Command::Log(JobEvent::Evaluated {
                    version: ModelVersion(version),
                    split: EvalSplit::Test,
                    evaluation: None,
                    reason: Some("the job ended first".to_string()),
                    by_client: Vec::new(),
                }));
            }
        }
        expected.push(Command::Log(JobEvent::Ended(Outcome::Cancelled)));
        expected.push(Command::End(Outcome::Cancelled));
        assert_eq!(commands, expected, "{phases:?}");
        assert_eq!(
            (bench.phase(), bench.machine.poll_deadline()),
            ("cancelled", None)
        );
        // Everything that may have been under way comes to its end.
        assert!(bench.send(Event::Prepared(Ok(Vec::new()))).is_empty());
        assert!(bench.plan(R1, 2, 2, 2).is_empty());
        assert!(bench.plan(R2, 2, 2, 2).is_empty());
        assert!(bench.aggregated(R1).is_empty());
        assert!(bench.published(1).is_empty());
        let evaluation = Ok(measured(1.0));
        let version_one = ModelVersion(1);
        assert!(
            bench
                .send(Event::Evaluated {
                    version: version_one,
                    split: EvalSplit::Test,
                    evaluation
                })
                .is_empty()
        );
        // And workers come and go as before.
        assert!(bench.lose(W1).is_empty() && bench.join(W2).is_empty());
        bench.wait(10_000);
        assert!(bench.send(Event::Tick).is_empty());
        assert_eq!(bench.machine.status().version, version);
        assert_eq!(bench.machine.outcome(), Some(&Outcome::Cancelled));
    }
    assert_eq!(
        phases,
        [
            "waiting",
            "preparing",
            "gathering",
            "planning",
            "collecting",
            "aggregating",
            "publishing",
            "finishing"
        ]
    );
}

#[test]
fn a_cancel_is_granted_again_and_refused_to_a_job_that_ended_by_itself() {
    let mut bench = Bench::planning(config(), 1, 2);
    bench.cancel();
    assert_eq!(bench.cancel(), (Response::Accepted, Vec::new()));
    let mut bench = Bench::new(config());
    bench.tick();
    let (response, commands) = bench.cancel();
    assert_eq!(
        (refused(&response), commands.len()),
        (RefusalKind::Conflict, 0)
    );
    failure(&bench);
}

#[test]
fn an_upload_that_ends_after_the_cancel_is_late() {
    let mut bench = Bench::collecting(config(), 1, 2);
    let upload: RequestId = bench.begin(W1, C0, R1);
    bench.cancel();
    assert_eq!(
        refused(&bench.store(upload, C0, R1, Ok(())).0),
        RefusalKind::Late
    );
}

#[test]
fn a_job_of_no_rounds_is_complete_once_it_is_prepared() {
    let config = MachineConfig {
        rounds: 0,
        ..config()
    };
    let bench = Bench::planning(config, 1, 2);
    assert_eq!(bench.machine.outcome(), Some(&Outcome::Completed));
}

#[test]
fn the_end_of_a_job_whose_clients_failed_has_their_reason_once_with_client_and_worker() {
    let mut bench = Bench::collecting(config(), 1, 3);
    for round in 1..=3 {
        let round = RoundId(round);
        if round > R1 {
            bench.plan(round, 3, 3, 2);
        }
        bench.give_up(W1, C0, round);
        bench.give_up(W1, C1, round);
    }
    assert_eq!(
        failure(&bench),
        "attempt 3 of 3 was abandoned: too many clients have failed (reports accepted: 0, needed: 2); \
         2 clients failed: out of memory; the first is client 0 (worker 1)"
    );
}
