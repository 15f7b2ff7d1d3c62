//! A run from start to end, and what it leaves behind.

use std::fs;

use fedavg::{
    backend::DeviceSpec, cli::RunSummary, protocol::WorkerSummary, round::Outcome,
    telemetry::parse_rounds,
};

use super::deployment::{Deployment, fedavg};

#[test]
fn a_job_submitted_over_the_network_trains_and_its_results_can_be_fetched() {
    let deployment = Deployment::start();
    let _workers = [deployment.worker("first"), deployment.worker("second")];
    let run = deployment.operator(
        "submit --clients 4 --rounds 8 --local-epochs 2 --lr 0.1 --min-workers 2 --watch",
    );
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.out.contains("completed: 8 rounds"), "{}", run.out);
    assert!(
        run.err.contains("version 8 of 8 from 4 clients"),
        "{}",
        run.err
    );

    let workers: Vec<WorkerSummary> = deployment.ask("workers");
    assert_eq!(workers.len(), 2);
    assert!(
        workers
            .iter()
            .all(|worker| worker.examples_per_second > Some(0.0))
    );
    let listed = deployment.operator("workers");
    assert!(listed.out.contains(" cores"), "{}", listed.out);

    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("results");
    let results = deployment.operator(&format!("results 1 --output {}", output.display()));
    assert_eq!(results.code, Some(0), "{results:?}");
    let read = |name: &str| fs::read_to_string(output.join(name)).unwrap();
    let summary: RunSummary = serde_json::from_str(&read("summary.json")).unwrap();
    assert_eq!(summary.outcome, Some(Outcome::Completed));
    assert!(summary.test_accuracy.unwrap() > 0.95, "{summary:?}");
    let rounds = parse_rounds(&read("rounds.jsonl")).unwrap();
    assert_eq!(rounds.len(), 8);
    assert!(
        rounds
            .iter()
            .all(|round| round.folded.len() == 4 && round.bytes > 0)
    );
    let device = DeviceSpec::Cpu.resolve().unwrap().to_string();
    for record in &rounds {
        let names: Vec<_> = record
            .contributions
            .iter()
            .map(|part| part.name.as_str())
            .collect();
        assert_eq!(names, ["first", "second"]);
        for part in &record.contributions {
            assert_eq!(part.device.as_deref(), Some(device.as_str()));
            assert!(part.clients.len() == 2 && part.examples > 700, "{part:?}");
            assert!(
                part.seconds.unwrap() > 0.0 && part.energy_joules.is_none(),
                "{part:?}"
            );
        }
    }
    assert!(read("events.jsonl").lines().count() > 8 * 4);

    let model = folder.path().join("downloaded.safetensors");
    let download = format!("model download 1 --output {}", model.display());
    assert_eq!(deployment.operator(&download).code, Some(0));
    let downloaded = fs::read(&model).unwrap();
    assert_eq!(
        downloaded,
        fs::read(output.join("model.safetensors")).unwrap()
    );
    let inspected = fedavg(&format!("model inspect {}", model.display()));
    assert!(inspected.out.contains("fc1.weight"), "{inspected:?}");

    // From where that run ended.
    let again = deployment.operator(&format!(
        "submit --clients 4 --rounds 1 --min-workers 2 --watch --json --initial {}",
        model.display()
    ));
    let last = again.out.lines().last().unwrap();
    let summary: RunSummary = serde_json::from_str(last).unwrap();
    assert!(summary.test_accuracy.unwrap() > 0.95, "{summary:?}");
}

#[test]
fn a_simulation_without_arguments_reaches_95_percent_and_prints_its_rounds() {
    let run = fedavg("simulate");
    assert_eq!(run.code, Some(0), "{run:?}");
    let mut lines = run.out.lines();
    assert!(
        lines.next().unwrap().contains("test accuracy"),
        "{}",
        run.out
    );
    let last = run.out.lines().last().unwrap();
    let accuracy = last.split("test accuracy ").nth(1).unwrap();
    let accuracy: f64 = accuracy.split(' ').next().unwrap().parse().unwrap();
    assert!(accuracy >= 95.0, "{last}");
    assert_eq!(run.out.lines().count(), 1 + 20 + 1, "{}", run.out);
}
