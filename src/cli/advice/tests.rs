use std::fs;

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    job: JobArgs,
}

/// What is said of a job with these flags; at most one line is expected.
fn said(flags: &str) -> String {
    let arguments = ["test"].into_iter().chain(flags.split_whitespace());
    let flags = Command::try_parse_from(arguments).unwrap().job;
    warnings(&flags.job().unwrap(), &flags).join("\n")
}

#[test]
fn a_job_without_surprises_has_no_warnings() {
    for flags in [
        "",
        "--strategy fedadam --optimizer adamw --inner-state keep",
        "--strategy qfedavg --momentum 0",
        "--strategy fedprox --strategy-set mu=100 --lr 0.01",
        "--optimizer adam --momentum 0",
        "--warmup 19 --rounds 20",
        // Nothing is lost: FedAvg has no state.
        "--first-round 21",
        "--strategy-set sampler=own --strategy-set depth=3",
        "--strategy median --clients 3",
        "--strategy multi_krum --strategy-set select=10 --clients 15",
        "--strategy norm_clipping --strategy-set bound=2",
    ] {
        assert_eq!(said(flags), "", "{flags}");
    }
}

#[test]
fn a_setting_without_effect_is_told() {
    for (flags, expected) in [
        (
            "--optimizer adamw --momentum 0.9",
            "training.momentum 0.9 has no effect: it is sgd's, and the optimizer is adamw",
        ),
        (
            "--inner-state keep --momentum 0",
            "training.inner_state keep has no effect: sgd without momentum has no state",
        ),
        (
            "--warmup 3 --rounds 3 --lr 0.4",
            "schedule.warmup 3 is not below rounds, which is 3: the learning rate never reaches 0.4, and is 0.3000 in the last \
             round",
        ),
        (
            "--goal 2 --fraction 0.5",
            "strategy.fraction 0.5 has no effect: limits.goal says that a round waits for 2 reports",
        ),
        (
            "--strategy krum --clients 4",
            "the reducer tolerates no attacker: with 4 clients in a round, f is 0",
        ),
        (
            "--strategy bulyan --clients 15",
            "the reducer needs a report of each of the 15 clients of a round: if one of them fails, or an attacker sends a report \
             that is refused, the round fails. Set f = 2 at most, or have more clients in a round",
        ),
        (
            "--strategy multi_krum --strategy-set select=15 --clients 15",
            "the reducer tolerates no attacker: a round has 15 clients, and select = 15",
        ),
        (
            "--strategy multi_krum --strategy-set select=12 --strategy-set f=2 --clients 12 --fraction 1",
            "the reducer tolerates no attacker: a round has 12 clients, and select = 12",
        ),
        (
            "--strategy median --clients 2",
            "the reducer tolerates no attacker: a round has 2 clients, and 3 are the fewest",
        ),
        (
            "--strategy geometric_median --clients 20 --fraction 0.1",
            "the reducer tolerates no attacker: a round has 2 clients, and 3 are the fewest",
        ),
        (
            "--strategy norm_clipping --clients 1",
            "the reducer tolerates no attacker: a round has 1 client, and 3 are the fewest",
        ),
        (
            "--strategy centered_clipping --clients 2",
            "the reducer tolerates no attacker: a round has 2 clients, and 3 are the fewest",
        ),
        (
            "--strategy norm_clipping --strategy-set bound=2 --strategy-set multiplier=3",
            "strategy.multiplier 3 has no effect: strategy.bound says how long a report may be",
        ),
        (
            "--strategy median --weighting uniform",
            "strategy.weighting uniform has no effect: reducer median counts all reports alike",
        ),
        (
            "--strategy qfedavg --weighting uniform",
            "strategy.weighting uniform counts for buffers alone: objective qfedavg weighs clients by their loss",
        ),
    ] {
        assert_eq!(said(flags), expected);
    }
}

#[test]
fn what_a_continued_job_begins_again_with_is_told() {
    let told = "a job that continues another one takes over its model alone; it begins again with";
    for (flags, lost) in [
        ("--strategy fedadam", "the strategy's state (m, v)"),
        (
            "--strategy scaffold",
            "the strategy's state (control, control_restarts)",
        ),
        (
            "--strategy-set sampler=own",
            "the strategy's state, if it has any",
        ),
        (
            "--strategy-set sampler=round_robin",
            "the passes of round_robin",
        ),
        (
            "--inner-state keep --personal head.* --encoding top_k:0.5 --schedule cosine",
            "the momentum and moments that clients keep, the clients' personal tensors, what top_k:0.5 has not sent yet, the \
             schedule of the learning rate",
        ),
    ] {
        let expected = format!("--first-round 21: {told} {lost}");
        assert_eq!(said(&format!("--first-round 21 {flags}")), expected);
    }
}

#[test]
fn a_strategy_that_replaces_the_files_says_what_it_drops() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("job.toml");
    let text = "strategy = { kind = 'fedprox', mu = 0.5, fraction = 0.25, sampler = 'by_size' }\n";
    fs::write(&file, text).unwrap();
    let said = said(&format!("{} --strategy scaffold", file.display()));
    let expected = "--strategy scaffold: these settings of the job file belong to another strategy and do not count: mu = 0.5";
    assert_eq!(said, expected);
}

/// The distance to the global model after 500 steps on a parabola of this curvature, from a distance of 1.
fn distance(training: &TrainingSettings, pull: f64) -> f64 {
    let (mut distance, mut velocity) = (1.0, 0.0);
    for _ in 0..500 {
        let gradient: f64 = pull * distance;
        velocity = training.momentum * velocity + gradient;
        distance -= if training.nesterov {
            gradient + training.momentum * velocity
        } else {
            velocity
        };
    }
    distance.abs()
}

#[test]
fn a_pull_is_told_from_where_steps_diverge() {
    for (momentum, nesterov) in [(0.0, false), (0.9, false), (0.5, false), (0.9, true)] {
        let training = TrainingSettings {
            momentum,
            nesterov,
            ..TrainingSettings::default()
        };
        let limit = steepest_pull(&training).unwrap();
        assert!(distance(&training, 0.99 * limit) < 1.0, "{momentum}");
        assert!(distance(&training, 1.02 * limit) > 10.0, "{momentum}");
    }
    for (flags, key) in [
        ("--strategy fedprox --strategy-set mu=40", "mu"),
        ("--strategy feddyn --strategy-set alpha=40", "alpha"),
    ] {
        let flags = format!("{flags} --lr 0.1");
        let told = said(&flags);
        let expected =
            format!("strategy.{key} * training.lr is 4.0000, and from 3.8000 on the steps");
        assert!(told.starts_with(&expected), "{told}");
        assert_eq!(said(&format!("{flags} --optimizer adam")), "");
        assert_eq!(said(&format!("{flags} --clip-norm 1")), "");
    }
}
