//! What commands say of a job that is no mistake, but may surprise: warnings, once the job is taken.

use std::fs;

use fedavg::{StrategySpec, cli::RunSummary};

use super::deployment::{Deployment, fedavg};

#[test]
fn a_strategy_of_a_flag_keeps_who_takes_part_and_says_what_it_drops() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("job.toml");
    let text = "rounds = 1\n[strategy]\nkind = 'fedprox'\nmu = 0.5\nsampler = 'round_robin'\nfraction = 0.25\n";
    fs::write(&file, text).unwrap();
    let run = fedavg(&format!(
        "simulate {} --strategy fedadam --json",
        file.display()
    ));
    assert_eq!(run.code, Some(0), "{run:?}");
    let summary: RunSummary = serde_json::from_str(&run.out).unwrap();
    let strategy: &StrategySpec = &summary.spec.strategy;
    assert_eq!(strategy.name(), "fedadam");
    let settings = strategy.settings();
    assert_eq!(
        (&settings["sampler"], &settings["fraction"]),
        (&"round_robin".into(), &0.25.into())
    );
    assert!(!settings.contains_key("mu"), "{settings:?}");
    let said: Vec<_> = run.err.lines().take(2).collect();
    assert!(
        said[0].starts_with("mlp on digits: 8 clients"),
        "what is done comes first: {run:?}"
    );
    assert_eq!(
        said[1],
        "warning: --strategy fedadam: these settings of the job file belong to another strategy and do not count: mu = 0.5"
    );
}

#[test]
fn a_submitted_job_that_loses_state_is_a_warning_once_it_is_taken() {
    let deployment = Deployment::start();
    let submitted = fedavg(&format!(
        "submit --first-round 21 --strategy fedadam --coordinator {}",
        deployment.url
    ));
    assert_eq!(submitted.code, Some(0), "{submitted:?}");
    assert!(submitted.out.starts_with("job 1: "), "{submitted:?}");
    assert_eq!(
        submitted.err.trim_end(),
        "warning: --first-round 21: a job that continues another one takes over its model alone; it begins again with the \
         strategy's state (m, v)"
    );
}
