//! The same bits: whatever the number of workers, in one process or over the network, and repeated from a record.

use std::{fs, path::Path};

use fedavg::{
    protocol::LoggedEvent,
    telemetry::{canonical, parse_rounds},
};

pub use super::binaries::model;
use super::deployment::{Deployment, fedavg};

/// Every client in every round, so that nothing depends on who is quicker.
const JOB: &str =
    "--clients 4 --goal 4 --min-updates 4 --rounds 3 --local-epochs 2 --lr 0.1 --seed 7";

fn simulate(flags: &str, output: &Path) {
    let run = fedavg(&format!("simulate {flags} --output {}", output.display()));
    assert_eq!(run.code, Some(0), "{run:?}");
}

fn log(folder: &Path) -> Vec<LoggedEvent> {
    let text = fs::read_to_string(folder.join("events.jsonl")).unwrap();
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn one_worker_two_workers_and_the_network_make_the_same_model() {
    let deployment = Deployment::start();
    let _workers = [deployment.worker("first"), deployment.worker("second")];
    let folder = tempfile::tempdir().unwrap();
    for model_name in ["mlp", "tiny_cnn"] {
        let flags = format!("{JOB} --model {model_name}");
        let place = |run: &str| folder.path().join(format!("{model_name}-{run}"));
        simulate(&format!("{flags} --workers 1"), &place("one"));
        simulate(&format!("{flags} --workers 2"), &place("two"));
        let job = deployment.submit(&format!("{flags} --min-workers 2"));
        assert_eq!(deployment.watch(job).finish().1, Some(0));
        let results = format!("results {job} --output {}", place("network").display());
        assert_eq!(deployment.operator(&results).code, Some(0));

        let expected = (model(&place("one")), canonical(&log(&place("one"))));
        for run in ["two", "network"] {
            let place = place(run);
            assert!(
                model(&place) == expected.0,
                "{model_name}: {run} made another model"
            );
            assert_eq!(canonical(&log(&place)), expected.1, "{model_name}: {run}");
        }
    }
}

#[test]
fn a_record_of_rounds_repeats_a_run_whose_cohorts_were_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    simulate(
        "--clients 12 --fraction 0.5 --over-selection 0.2 --rounds 6 --seed 3",
        &first,
    );
    let record = first.join("rounds.jsonl");
    simulate(
        &format!("--workers 1 --replay {}", record.display()),
        &second,
    );
    assert!(
        model(&first) == model(&second),
        "the repeated run made another model"
    );
    let clients = |folder: &Path| {
        let text = fs::read_to_string(folder.join("rounds.jsonl")).unwrap();
        let rounds = parse_rounds(&text).unwrap();
        rounds
            .into_iter()
            .map(|round| round.folded)
            .collect::<Vec<_>>()
    };
    let folded = clients(&first);
    assert_eq!(folded, clients(&second));
    // Six of the eight that are drawn out of twelve: no six are in the cohort of every round.
    assert!(
        folded.iter().any(|clients| *clients != folded[0]),
        "the cohorts were to be drawn: {folded:?}"
    );
}
