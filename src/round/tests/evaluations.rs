//! Versions are evaluated beside the rounds.

use super::bench::*;
use crate::{
    ids::{ModelVersion, RoundId},
    report::RefusalKind,
    round::{
        ClientSpec, Command, Evaluation, EvaluationBy, Event, JobEvent, MachineConfig, Outcome,
        ProgressRules, Response, StopRule, TaskKind,
    },
    settings::{EvalSplit, StopSettings},
};

const V1: ModelVersion = ModelVersion(1);

fn by(evaluation: EvaluationBy) -> MachineConfig {
    MachineConfig {
        evaluation,
        ..config()
    }
}

/// Version 1 is committed, and round 2 is open.
fn committed(workers: u64) -> Bench {
    let mut bench = Bench::collecting(by(EvaluationBy::Workers), workers, 2);
    for client in [C0, C1] {
        let holder = bench.machine.lease(client).unwrap();
        bench.report(holder, client, R1);
    }
    bench.aggregated(R1);
    bench.published(1);
    bench.plan(R2, 2, 2, 2);
    bench
}

fn evaluated(commands: &[Command]) -> Option<(ModelVersion, Result<Evaluation, String>)> {
    logged(commands)
        .into_iter()
        .find_map(|event| match event.clone() {
            JobEvent::Evaluated {
                version,
                split: EvalSplit::Test,
                evaluation,
                reason,
                ..
            } => Some((version, evaluation.ok_or(reason.unwrap_or_default()))),
            _ => None,
        })
}

#[test]
fn the_driver_evaluates_beside_the_next_round_and_the_job_ends_after_the_last() {
    let mut bench = Bench::collecting(by(EvaluationBy::Driver), 1, 2);
    let commands = bench.commit(W1, R1);
    assert!(commands.contains(&Command::Evaluate {
        version: V1,
        split: EvalSplit::Test,
    }));
    bench.plan(R2, 2, 2, 2);
    let commands = bench.commit(W1, R2);
    let second = Command::Evaluate {
        version: ModelVersion(2),
        split: EvalSplit::Test,
    };
    assert!(!commands.contains(&second), "one at a time");
    assert_eq!(bench.phase(), "finishing");
    assert_eq!(bench.detail(), "waiting for the evaluation of 2 versions");
    for version in [V1, ModelVersion(2)] {
        assert!(bench.machine.needs(version));
        assert_eq!(bench.phase(), "finishing");
        let evaluation = Ok(measured(1.0));
        let commands = bench.send(Event::Evaluated {
            version,
            split: EvalSplit::Test,
            evaluation,
        });
        assert_eq!(evaluated(&commands), Some((version, Ok(measured(1.0)))));
        assert_eq!(commands.contains(&second), version == V1);
        let again = Event::Evaluated {
            version,
            split: EvalSplit::Test,
            evaluation: Ok(measured(2.0)),
        };
        assert!(bench.send(again).is_empty());
    }
    assert_eq!(bench.phase(), "completed");
}

#[test]
fn an_evaluation_that_fails_is_recorded_with_its_reason() {
    let mut bench = Bench::collecting(by(EvaluationBy::Driver), 1, 2);
    bench.commit(W1, R1);
    let evaluation = Err("no test split".to_string());
    let commands = bench.send(Event::Evaluated {
        version: V1,
        split: EvalSplit::Test,
        evaluation,
    });
    assert_eq!(
        evaluated(&commands),
        Some((V1, Err("no test split".to_string())))
    );
    assert_eq!(bench.phase(), "planning", "and the job goes on");
}

#[test]
fn a_version_is_needed_as_the_global_model_or_for_an_evaluation() {
    let mut bench = committed(1);
    assert!(bench.machine.needs(V1) && !bench.machine.needs(ModelVersion(0)));
    bench.commit(W1, R2);
    assert!(bench.machine.needs(V1) && bench.machine.needs(ModelVersion(2)));
    for client in [C0, C1] {
        bench.share(W1, client, 1, Ok(measured(1.0)));
    }
    assert!(bench.machine.needs(V1), "it is the best one so far");
    for client in [C0, C1] {
        bench.share(W1, client, 2, Ok(measured(0.5).with_accuracy(1.0)));
    }
    assert!(!bench.machine.needs(V1));
}

#[test]
fn workers_evaluate_a_share_for_each_client_before_they_train_on() {
    let mut bench = committed(2);
    let first = bench.poll(W1, &[]).unwrap();
    assert_eq!(
        first.kind,
        TaskKind::Evaluate {
            share: 0,
            shares: 2,
            split: EvalSplit::Test,
        }
    );
    assert_eq!((first.client, first.round, first.version), (C0, R1, V1));
    assert!(bench.machine.wants(W1, &first) && !bench.machine.wants(W2, &first));
    let next = bench.poll(W1, std::slice::from_ref(&first)).unwrap();
    assert!(matches!(next.kind, TaskKind::Train { .. }));
    let second = bench.poll(W2, &[]).unwrap();
    assert_eq!(
        second.kind,
        TaskKind::Evaluate {
            share: 1,
            shares: 2,
            split: EvalSplit::Test,
        }
    );
    let (response, commands) = bench.share(W1, C0, 1, Ok(measured(1.0)));
    assert_eq!((response, evaluated(&commands)), (Response::Accepted, None));
    assert!(!bench.machine.wants(W1, &first));
    // A share counts once.
    assert_eq!(
        bench.share(W1, C0, 1, Ok(measured(9.0))).0,
        Response::Accepted
    );
    let (_, commands) = bench.share(W2, C1, 1, Ok(measured(2.0)));
    let mean = Evaluation {
        examples: 20,
        ..measured(1.5)
    };
    assert_eq!(evaluated(&commands), Some((V1, Ok(mean))));
    assert_eq!(
        bench.share(W2, C1, 1, Ok(measured(2.0))),
        (Response::Accepted, Vec::new())
    );
}

#[test]
fn shares_are_taken_from_the_lease_holder_only() {
    let mut bench = committed(2);
    let kind = |bench: &mut Bench, client, version| {
        refused(&bench.share(W1, client, version, Ok(measured(1.0))).0)
    };
    assert_eq!(kind(&mut bench, C1, 1), RefusalKind::NotLeased);
    assert_eq!(kind(&mut bench, C0, 2), RefusalKind::NotFound);
    assert_eq!(kind(&mut bench, C2, 1), RefusalKind::UnknownClient);
}

#[test]
fn the_share_of_a_lost_worker_goes_to_another() {
    let mut bench = committed(2);
    bench.share(W2, C1, 1, Ok(measured(1.0)));
    let commands = bench.lose(W1);
    assert_eq!((evaluated(&commands), woken(&commands)), (None, vec![W2]));
    let task = bench.poll(W2, &[]).unwrap();
    assert_eq!(
        (task.client, task.kind),
        (
            C0,
            TaskKind::Evaluate {
                share: 0,
                shares: 2,
                split: EvalSplit::Test,
            }
        )
    );
    let (_, commands) = bench.share(W2, C0, 1, Ok(measured(1.0)));
    assert!(matches!(evaluated(&commands), Some((V1, Ok(_)))));
    // What it was told before stays.
    bench.lose(W2);
    assert_eq!(
        bench.share(W1, C0, 1, Ok(measured(1.0))).0,
        Response::Accepted
    );
}

#[test]
fn one_share_that_is_never_to_come_ends_the_evaluation() {
    let mut bench = committed(2);
    let (_, commands) = bench.share(W2, C1, 1, Err("out of memory".to_string()));
    let reason = "client 1 could not evaluate: out of memory".to_string();
    assert_eq!(evaluated(&commands), Some((V1, Err(reason))));
    let mut bench = Bench::planning_at_home(by(EvaluationBy::Workers), 2);
    bench.plan(R1, 2, 2, 2);
    bench.report(W1, C0, R1);
    bench.report(W2, C1, R1);
    bench.aggregated(R1);
    bench.published(1);
    let commands = bench.lose(W1);
    let reason = "client 0 could not evaluate: the worker that has its data is gone".to_string();
    assert_eq!(evaluated(&commands), Some((V1, Err(reason))));
}

#[test]
fn an_evaluation_is_given_up_at_its_deadline_and_the_round_goes_on() {
    let mut bench = committed(1);
    bench.share(W1, C0, 1, Ok(measured(1.0)));
    bench.wait(30);
    let commands = bench.send(Event::Tick);
    let reason = "1 of 2 shares of the test split were not evaluated in time".to_string();
    assert_eq!(evaluated(&commands), Some((V1, Err(reason))));
    assert_eq!(bench.phase(), "collecting");
    bench.commit(W1, R2);
    assert_eq!(bench.phase(), "finishing");
    bench.tick();
    assert_eq!(bench.phase(), "completed");
}

#[test]
fn without_a_worker_the_next_one_evaluates() {
    let mut bench = Bench::collecting(by(EvaluationBy::Workers), 1, 2);
    bench.report(W1, C0, R1);
    bench.report(W1, C1, R1);
    bench.aggregated(R1);
    bench.lose(W1);
    assert_eq!(evaluated(&bench.published(1)), None);
    bench.join(W2);
    assert_eq!(
        bench.poll(W2, &[]).unwrap().kind,
        TaskKind::Evaluate {
            share: 0,
            shares: 2,
            split: EvalSplit::Test,
        }
    );
    // Data that is at home nowhere is evaluated by nobody, and that is said at once.
    let mut bench = Bench::planning_at_home(by(EvaluationBy::Workers), 2);
    bench.plan(R1, 2, 2, 2);
    bench.report(W1, C0, R1);
    bench.report(W2, C1, R1);
    bench.lose(W1);
    bench.lose(W2);
    bench.aggregated(R1);
    let commands = bench.published(1);
    assert_eq!(
        evaluated(&commands),
        Some((V1, Err("no client has a live worker".to_string())))
    );
}

#[test]
fn versions_are_handed_out_in_order_one_at_a_time() {
    let mut bench = committed(1);
    bench.commit(W1, R2);
    for version in [1, 2] {
        let mut busy = Vec::new();
        while let Some(task) = bench.poll(W1, &busy) {
            busy.push(task);
        }
        let work: Vec<_> = busy
            .iter()
            .map(|task| (task.version.0, task.round.0, task.client))
            .collect();
        assert_eq!(work, [(version, version, C0), (version, version, C1)]);
        bench.share(W1, C0, version, Ok(measured(1.0)));
        bench.share(W1, C1, version, Ok(measured(1.0)));
    }
}

/// A job of five rounds whose driver is slow to evaluate: three rounds are committed, and no version is evaluated.
fn three_behind() -> Bench {
    let config = MachineConfig {
        rounds: 5,
        ..by(EvaluationBy::Driver)
    };
    let mut bench = Bench::collecting(config, 1, 2);
    bench.commit(W1, R1);
    for round in [2, 3] {
        bench.plan(RoundId(round), 2, 2, 2);
        bench.commit(W1, RoundId(round));
    }
    bench
}

#[test]
fn training_waits_while_two_versions_wait_for_their_turn() {
    let mut bench = three_behind();
    assert_eq!(bench.phase(), "evaluating");
    assert_eq!(
        bench.detail(),
        "waiting for the evaluation of 3 versions before round 4"
    );
    for version in 1..=3 {
        assert!(bench.machine.needs(ModelVersion(version)));
    }
    let commands = bench.send(Event::Evaluated {
        version: V1,
        split: EvalSplit::Test,
        evaluation: Ok(measured(1.0)),
    });
    assert!(commands.contains(&Command::Evaluate {
        version: ModelVersion(2),
        split: EvalSplit::Test,
    }));
    assert_eq!(bench.phase(), "planning");
}

#[test]
fn the_log_of_a_job_that_ends_early_says_which_versions_were_not_evaluated() {
    let mut bench = three_behind();
    let (_, commands) = bench.cancel();
    let mut skipped = Vec::new();
    for event in logged(&commands) {
        if let JobEvent::Evaluated {
            version, reason, ..
        } = event
        {
            assert_eq!(reason.as_deref(), Some("the job ended first"));
            skipped.push(version.0);
        }
    }
    assert_eq!(skipped, [1, 2, 3]);
    assert_eq!(bench.phase(), "cancelled");
}

#[test]
fn what_the_driver_measures_is_checked_as_well() {
    let cases = [
        (
            Evaluation::new(f64::NAN, 10),
            "the loss is not a finite number",
        ),
        (Evaluation::new(1.0, 0), "the test split has no examples"),
        (
            measured(1.0).with_metric("mae", f64::INFINITY),
            "the metric \"mae\" is not a finite number",
        ),
    ];
    for (evaluation, problem) in cases {
        let mut bench = Bench::collecting(by(EvaluationBy::Driver), 1, 2);
        bench.commit(W1, R1);
        let commands = bench.send(Event::Evaluated {
            version: V1,
            split: EvalSplit::Test,
            evaluation: Ok(evaluation),
        });
        assert_eq!(evaluated(&commands), Some((V1, Err(problem.to_string()))));
    }
}

#[test]
fn shares_of_pinned_clients_are_of_one_split_and_those_of_local_data_are_not() {
    for pinned in [true, false] {
        let mut config = by(EvaluationBy::Workers);
        config.pinned = pinned;
        let mut bench = Bench::planning_at_home(config, 2);
        bench.plan(R1, 2, 2, 2);
        for client in [C0, C1] {
            let holder = bench.machine.lease(client).unwrap();
            bench.report(holder, client, R1);
        }
        bench.aggregated(R1);
        bench.published(1);
        bench.share(W1, C0, 1, Ok(measured(1.0)));
        let larger = Evaluation {
            examples: 1_000_000,
            ..measured(2.0)
        };
        let (_, commands) = bench.share(W2, C1, 1, Ok(larger));
        let (_, evaluation) = evaluated(&commands).unwrap();
        assert_eq!(evaluation.is_err(), pinned, "{evaluation:?}");
    }
}

/// A bench with these rules, whose driver evaluates, after its first commit.
fn with_rules(rounds: u32, change: impl FnOnce(&mut ProgressRules)) -> Bench {
    let mut config = by(EvaluationBy::Driver);
    config.rounds = rounds;
    change(&mut config.progress);
    Bench::collecting(config, 1, 2)
}

/// The driver has evaluated a version to this accuracy.
fn driver_says(bench: &mut Bench, version: u64, split: EvalSplit, accuracy: f64) -> Vec<Command> {
    bench.send(Event::Evaluated {
        version: ModelVersion(version),
        split,
        evaluation: Ok(measured(1.0).with_accuracy(accuracy)),
    })
}

fn asked(commands: &[Command]) -> Vec<(u64, EvalSplit)> {
    let mut asked = Vec::new();
    for command in commands {
        if let Command::Evaluate { version, split } = command {
            asked.push((version.0, *split));
        }
    }
    asked
}

#[test]
fn with_a_validation_split_the_test_split_is_for_the_final_and_the_best_version() {
    use EvalSplit::{Test, Validation};
    let mut bench = with_rules(3, |rules| rules.evaluation.validation = true);
    assert_eq!(asked(&bench.commit(W1, R1)), [(1, Validation)]);
    driver_says(&mut bench, 1, Validation, 0.5);
    bench.plan(R2, 2, 2, 2);
    bench.commit(W1, R2);
    driver_says(&mut bench, 2, Validation, 0.9);
    bench.plan(RoundId(3), 2, 2, 2);
    bench.commit(W1, RoundId(3));
    let commands = driver_says(&mut bench, 3, Validation, 0.7);
    assert_eq!(asked(&commands), [(3, Test)]);
    assert_eq!(bench.phase(), "finishing");
    assert_eq!(
        asked(&driver_says(&mut bench, 3, Test, 0.6)),
        [(2, Test)],
        "the best one"
    );
    driver_says(&mut bench, 2, Test, 0.8);
    assert_eq!(bench.phase(), "completed");
    let best = bench.machine.best().unwrap();
    assert_eq!((best.measured.version.0, best.value), (2, 0.9));
    assert_eq!(best.measured.test.as_ref().unwrap().accuracy, Some(0.8));
    assert!(bench.machine.needs(ModelVersion(2)), "after the end, too");
}

#[test]
fn versions_between_are_not_evaluated_and_the_last_one_always_is() {
    let mut bench = with_rules(3, |rules| rules.evaluation.every = 2);
    assert_eq!(asked(&bench.commit(W1, R1)), []);
    assert_eq!(bench.machine.first_unevaluated(), None);
    bench.plan(R2, 2, 2, 2);
    assert_eq!(asked(&bench.commit(W1, R2)), [(2, EvalSplit::Test)]);
    driver_says(&mut bench, 2, EvalSplit::Test, 0.5);
    bench.plan(RoundId(3), 2, 2, 2);
    assert_eq!(asked(&bench.commit(W1, RoundId(3))), [(3, EvalSplit::Test)]);
    driver_says(&mut bench, 3, EvalSplit::Test, 0.5);
    assert_eq!(bench.phase(), "completed");
}

#[test]
fn a_rule_waits_for_its_measurement_and_ends_the_rounds() {
    let mut bench = with_rules(20, |rules| {
        rules.stop = Some(StopSettings {
            at_least: Some(0.8),
            ..StopSettings::default()
        });
    });
    bench.commit(W1, R1);
    assert_eq!(bench.phase(), "evaluating", "no round runs ahead of a rule");
    driver_says(&mut bench, 1, EvalSplit::Test, 0.5);
    bench.plan(R2, 2, 2, 2);
    bench.commit(W1, R2);
    let commands = driver_says(&mut bench, 2, EvalSplit::Test, 0.8);
    let ended = logged(&commands).into_iter().find_map(|event| match event {
        JobEvent::Ended(outcome) => Some(outcome.clone()),
        _ => None,
    });
    let Some(Outcome::Stopped { rule, reason }) = ended else {
        panic!("{commands:?}");
    };
    assert_eq!(rule, StopRule::Target);
    assert_eq!(reason, "test_accuracy is 0.8000, and at_least is 0.8");
    assert_eq!(bench.phase(), "stopped");
}

#[test]
fn time_ends_the_rounds_and_the_version_that_was_not_due_is_evaluated() {
    let mut bench = with_rules(20, |rules| {
        rules.evaluation.every = 5;
        rules.stop = Some(StopSettings {
            max_seconds: Some(30),
            ..StopSettings::default()
        });
    });
    bench.commit(W1, R1);
    bench.plan(R2, 2, 2, 2);
    bench.wait(30);
    assert_eq!(asked(&bench.commit(W1, R2)), [(2, EvalSplit::Test)]);
    assert_eq!(bench.phase(), "finishing");
    driver_says(&mut bench, 2, EvalSplit::Test, 0.5);
    assert_eq!(bench.phase(), "stopped");
}

#[test]
fn a_job_without_rounds_evaluates_the_initial_model() {
    let mut config = by(EvaluationBy::Driver);
    config.rounds = 0;
    let mut bench = Bench::new(config);
    bench.join(W1);
    let client = ClientSpec {
        examples: 10,
        home: None,
    };
    let commands = bench.send(Event::Prepared(Ok(vec![client; 2])));
    assert_eq!(asked(&commands), [(0, EvalSplit::Test)]);
    driver_says(&mut bench, 0, EvalSplit::Test, 0.5);
    assert_eq!(bench.phase(), "completed");
    let last = bench.machine.last_measured().unwrap();
    assert_eq!(last.test.as_ref().unwrap().accuracy, Some(0.5));
}

#[test]
fn divergence_is_said_once_of_a_job_without_a_rule() {
    let mut bench = with_rules(20, |_| ());
    bench.commit(W1, R1);
    driver_says(&mut bench, 1, EvalSplit::Test, 0.5);
    let mut told = 0;
    for round in 2..4 {
        bench.plan(RoundId(round), 2, 2, 2);
        bench.commit(W1, RoundId(round));
        let commands = bench.send(Event::Evaluated {
            version: ModelVersion(round),
            split: EvalSplit::Test,
            evaluation: Ok(measured(f64::NAN)),
        });
        for event in logged(&commands) {
            if let JobEvent::Diverges { reason } = event {
                assert_eq!(reason, "the test loss is not a finite number");
                told += 1;
            }
        }
    }
    assert_eq!(told, 1);
}
