//! Simulations in which clients attack: what is printed and written, repeated and refused.

use std::{fs, path::Path};

use fedavg::cli::RunSummary;

pub use super::binaries::model;
use super::deployment::fedavg;

const JOB: &str = "simulate --clients 10 --rounds 6 --local-epochs 2 --seed 5";

fn summary(folder: &Path) -> RunSummary {
    let text = fs::read_to_string(folder.join("summary.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_backdoor_is_in_the_last_lines_and_the_summary_and_a_replay_repeats_it() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let first = fedavg(&format!(
        "{JOB} --attack backdoor:0.3 --attack-set target=4 --output {}",
        place("first").display()
    ));
    assert_eq!(first.code, Some(0), "{first:?}");
    let found = summary(&place("first"));
    let attack = found.attack.clone().unwrap();
    assert_eq!(attack.attackers.len(), 3);
    let success = attack.success_rate.unwrap();
    assert!(success > 0.5, "{success}");
    let last = first.out.lines().last().unwrap();
    assert!(
        last.starts_with("attack backdoor") && last.contains("target 4 by 3 clients ("),
        "{first:?}"
    );
    assert!(
        last.ends_with(&format!("success rate {:.2} %", 100.0 * success)),
        "{first:?}"
    );

    let rounds = place("first/rounds.jsonl");
    let replay = format!("simulate --replay {}", rounds.display());
    let again = fedavg(&format!(
        "{replay} --workers 1 --output {}",
        place("second").display()
    ));
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(
        model(&place("first")) == model(&place("second")),
        "another model"
    );
    assert_eq!(summary(&place("second")).attack, found.attack);

    let other = fedavg(&format!("{replay} --attack lazy:0.3"));
    assert_eq!(other.code, Some(2), "{other:?}");
    assert!(
        other.err.contains("repeats the attack of the recorded run"),
        "{other:?}"
    );
}

#[test]
fn a_run_without_an_attack_has_none_in_its_record_and_its_replay() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("run");
    let run = fedavg(&format!(
        "{JOB} --rehearse 100 --output {}",
        output.display()
    ));
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(!run.out.contains("attack"), "{run:?}");
    let text = fs::read_to_string(output.join("summary.json")).unwrap();
    assert!(!text.contains("attack"), "{text}");
    let replay = format!(
        "simulate --rehearse 100 --replay {}",
        output.join("rounds.jsonl").display()
    );
    let refused = fedavg(&format!("{replay} --attack lazy:0.3"));
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("--attack"), "{refused:?}");
}

#[test]
fn what_can_not_attack_is_refused_in_words_before_anything_is_trained() {
    for (flags, expected) in [
        (
            "--attack sign_flop:0.2",
            "no attack \"sign_flop\" is known here (did you mean sign_flip?); known are alie",
        ),
        ("--attack sign_flip:1.2", "above 0 and at most 1, not 1.2"),
        ("--attack sign_flip", "KIND:FRACTION"),
        (
            "--attack sign_flip:clients=10",
            "no client 10 to attack: the job has 10 clients",
        ),
        (
            "--attack sign_flip:0.2 --attack-set factor=2",
            "factor is not a parameter of it; it has scale",
        ),
        (
            "--attack backdoor:0.2 --attack-set target=12",
            "target 12 is not a class",
        ),
        (
            "--attack backdoor:0.2 --rehearse 100",
            "--rehearse has no images",
        ),
        (
            "--attack ipm:0.2 --inner-state keep",
            "attackers that collude",
        ),
        (
            "--attack ipm:0.2 --strategy scaffold",
            "does not go with --strategy scaffold: the attackers lack objective:scaffold",
        ),
        (
            "--attack gaussian:0.2 --strategy qfedavg",
            "does not go with --strategy qfedavg: the attackers lack payload:loss_before",
        ),
        (
            "--attack ipm:0.2 --attack-set epsilon=1 --attack-set epsilon=2",
            "--attack-set epsilon is given more than once",
        ),
        ("--attack alie:0.1", "one attacker has no deviation"),
        (
            "--attack ipm:0.2 --partition proportional:measured",
            "proportional:measured",
        ),
    ] {
        let refused = fedavg(&format!("{JOB} {flags}"));
        assert_eq!(refused.code, Some(2), "{flags}: {refused:?}");
        assert!(refused.err.contains(expected), "{flags}: {refused:?}");
        assert!(
            !refused.err.contains("round 1") && !refused.err.contains("capability"),
            "it trained first: {refused:?}"
        );
    }
    let majority = fedavg(&format!("{JOB} --rehearse 100 --attack sign_flip:0.5"));
    assert_eq!(majority.code, Some(0), "{majority:?}");
    assert!(
        majority.err.contains("warning: 5 of 10 clients attack"),
        "{majority:?}"
    );
    let more_than_f = fedavg(&format!(
        "{JOB} --rehearse 100 --attack sign_flip:0.3 --strategy krum --strategy-set f=2"
    ));
    assert_eq!(more_than_f.code, Some(0), "{more_than_f:?}");
    assert!(
        more_than_f.err.contains(
            "warning: 3 of 10 clients attack, and the reducer tolerates 2 in a round of 10 clients"
        ),
        "{more_than_f:?}"
    );
    let as_many = fedavg(&format!(
        "{JOB} --rehearse 100 --attack sign_flip:0.3 --strategy krum --strategy-set f=3"
    ));
    assert!(!as_many.err.contains("tolerates"), "{as_many:?}");
    let submitted = fedavg("submit --attack sign_flip:0.3");
    assert_eq!(submitted.code, Some(2), "{submitted:?}");
    assert!(
        submitted.err.contains("--attack is for simulations"),
        "{submitted:?}"
    );
}

/// An abandoned round says who was left out, and why.
#[test]
fn a_round_whose_reports_are_all_left_out_is_recorded_with_the_reasons() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("run");
    let run = fedavg(&format!(
        "{JOB} --strategy zeroing --strategy-set initial=1e-6 --strategy-set increment=0 --output {}",
        output.display()
    ));
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(
        run.err.contains(
            "10 reports excluded, the first is of client 0: zeroing: its largest value is"
        ) && run.err.contains("raise `initial`"),
        "{run:?}"
    );
    let records = fs::read_to_string(output.join("rounds.jsonl")).unwrap();
    let record: serde_json::Value = serde_json::from_str(records.lines().next().unwrap()).unwrap();
    assert_eq!(record["excluded"].as_array().unwrap().len(), 10);
    assert!(record["metrics"]["norm_bound"].is_number(), "{record}");
}

/// q-FedAvg expects a payload beside the delta, which attackers have of their honest training.
#[test]
fn attackers_that_collude_report_all_that_is_expected() {
    let run = fedavg("simulate --clients 5 --rounds 2 --strategy qfedavg --attack ipm:0.4 --json");
    assert_eq!(run.code, Some(0), "{run:?}");
    let found: RunSummary = serde_json::from_str(&run.out).unwrap();
    assert_eq!(found.attack.unwrap().attackers.len(), 2);
    assert!(!run.err.contains("failed"), "{run:?}");
}

#[test]
fn attacks_are_listed_with_their_parameters() {
    let all = fedavg("attacks");
    for name in [
        "alie",
        "backdoor",
        "free_rider",
        "gaussian",
        "ipm",
        "label_flip",
        "lazy",
        "sign_flip",
    ] {
        assert!(
            all.out.lines().any(|line| line.starts_with(name)),
            "{name}: {all:?}"
        );
    }
    let one = fedavg("attacks ipm");
    assert!(
        one.out.contains("1903.03936") && one.out.contains("epsilon"),
        "{one:?}"
    );
    let unknown = fedavg("attacks impossible");
    assert_eq!(unknown.code, Some(2));
    assert!(
        unknown.err.contains("attacks are alie, backdoor"),
        "{unknown:?}"
    );
}
