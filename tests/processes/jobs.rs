//! Jobs as people run them: the best model, stopping rules, validation, evaluation alone, going on, submitting again.

use std::fs;

use fedavg::{
    ids::{JobId, ModelVersion},
    protocol::{JobSummary, RoundRecord},
    round::{Outcome, StopRule},
};

use super::{
    deployment::{Deployment, fedavg, nothing_was_lost},
    reproducible::model,
};

/// The bytes of a job's model.
fn downloaded(deployment: &Deployment, job: JobId, flags: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    let download = format!("model download {job} --output {} {flags}", file.display());
    let done = deployment.operator(&download);
    assert_eq!(done.code, Some(0), "{done:?}");
    fs::read(file).unwrap()
}

fn finished(deployment: &Deployment, flags: &str) -> JobId {
    let job = deployment.submit(flags);
    let (log, code) = deployment.watch(job).finish();
    assert_eq!(code, Some(0), "{log:#?}");
    nothing_was_lost(&log, 4);
    job
}

fn summary(deployment: &Deployment, job: JobId) -> JobSummary {
    deployment.ask(&format!("status {job}"))
}

fn rounds(deployment: &Deployment, job: JobId) -> Vec<RoundRecord> {
    let folder = tempfile::tempdir().unwrap();
    let results = format!("results {job} --force --output {}", folder.path().display());
    assert_eq!(deployment.operator(&results).code, Some(0));
    let lines = fs::read_to_string(folder.path().join("rounds.jsonl")).unwrap();
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn rounds_and_as_many_more_are_twice_as_many_to_the_bit() {
    let deployment = Deployment::start();
    let _first = deployment.worker("first");
    let _second = deployment.worker("second");
    let common = "--clients 4 --goal 4 --min-updates 4 --min-workers 2 --lr 0.05 --seed 11";
    // A state of the strategy, a state of each client, and a residual of each client.
    for strategy in [
        "--strategy fedavg",
        "--strategy fedadam",
        "--strategy scaffold",
        "--strategy fedavg --encoding top_k:0.05",
    ] {
        let whole = finished(&deployment, &format!("{common} {strategy} --rounds 6"));
        let half = finished(&deployment, &format!("{common} {strategy} --rounds 3"));
        let rest = finished(&deployment, &format!("--continue {half} --rounds 3"));
        let continued = summary(&deployment, rest).continued.unwrap();
        assert!(continued.is_exact, "{continued:?}");
        assert_eq!((continued.job, continued.version), (half, ModelVersion(3)));
        let of_rest = rounds(&deployment, rest);
        assert_eq!(of_rest[0].round.0, 4, "rounds go on, too");
        assert!(of_rest.iter().all(|record| record.state_lost.is_empty()));
        assert!(
            downloaded(&deployment, whole, "") == downloaded(&deployment, rest, ""),
            "{strategy}: another model"
        );
    }
}

#[test]
fn what_can_not_be_continued_says_so() {
    let deployment = Deployment::start();
    let _worker = deployment.worker("only");
    let job = finished(&deployment, "--clients 4 --rounds 2");
    let other = deployment.operator(&format!(
        "submit --continue {job} --rounds 1 --seed 5 --strategy fedadam --schedule cosine --encoding f16 --goal 3"
    ));
    assert_eq!(other.code, Some(0), "{other:?}");
    for note in [
        "the strategy is not",
        "seed is not",
        "the schedule",
        "encoded otherwise",
        "the goal",
    ] {
        assert!(other.err.contains(note), "{other:?}");
    }
    let best = deployment.operator(&format!("submit --continue {job}:best --rounds 1"));
    assert!(best.err.contains("from the best version"), "{best:?}");
    for (flags, code) in [("--continue 99", 3), ("--continue x", 2)] {
        let refused = deployment.operator(&format!("submit {flags} --rounds 1"));
        assert_eq!(refused.code, Some(code), "{refused:?}");
    }
    let simulated = fedavg("simulate --continue 1 --rounds 1");
    assert_eq!(simulated.code, Some(2), "{simulated:?}");
    assert!(simulated.err.contains("--initial"), "{simulated:?}");
}

#[test]
fn a_job_that_goes_on_has_as_many_clients_as_the_other_one_had() {
    let deployment = Deployment::start();
    let _first = deployment.worker("first");
    let job = deployment.submit("--rounds 2");
    assert_eq!(deployment.watch(job).finish().1, Some(0));
    let _second = deployment.worker("second");
    let rest = deployment.submit(&format!("--continue {job} --rounds 1 --min-workers 2"));
    assert_eq!(deployment.watch(rest).finish().1, Some(0));
    let summary = summary(&deployment, rest);
    assert_eq!(summary.clients, Some(1));
    assert!(summary.continued.unwrap().is_exact);
}

#[test]
fn a_target_ends_a_job_with_a_code_of_its_own_and_both_models_are_kept() {
    let deployment = Deployment::start();
    let _worker = deployment.worker("only");
    let job = deployment.submit(
        "--clients 4 --rounds 200 --lr 0.1 --validation 0.2 --metric validation_loss --stop-patience 3 \
         --min-improvement 0.5",
    );
    let (_, code) = deployment.watch(job).finish();
    assert_eq!(code, Some(5));
    let ended = summary(&deployment, job);
    let Some(Outcome::Stopped { rule, reason }) = &ended.outcome else {
        panic!("{ended:?}");
    };
    assert_eq!(*rule, StopRule::Patience);
    assert!(reason.contains("validation_loss"), "{reason}");
    let best = ended.best.unwrap();
    assert_eq!(best.metric.to_string(), "validation_loss");
    assert!(best.measured.test.is_some() && best.measured.validation.is_some());
    let records = rounds(&deployment, job);
    assert!(
        records
            .iter()
            .all(|record| record.validation_loss.is_some())
    );
    let (last, before) = records.split_last().unwrap();
    assert!(before.iter().all(|record| record.test_loss.is_none()));
    assert!(
        last.test_accuracy.is_some(),
        "the test split is for the end"
    );
    // Nobody trained on the examples that are kept: 1442 of 1797 digits are for training, and a fifth of them is kept.
    assert_eq!(
        ended.last_measured.unwrap().validation.unwrap().examples,
        288
    );

    let folder = tempfile::tempdir().unwrap();
    let results = format!("results {job} --force --output {}", folder.path().display());
    assert_eq!(deployment.operator(&results).code, Some(0));
    let best_file = downloaded(&deployment, job, "--best");
    if best.measured.version == ended.version {
        assert!(!folder.path().join("best.safetensors").exists());
    } else {
        let file = fs::read(folder.path().join("best.safetensors")).unwrap();
        assert!(file != fs::read(folder.path().join("model.safetensors")).unwrap());
        assert!(file == best_file);
    }
}

#[test]
fn a_validation_split_is_the_same_for_the_coordinator_and_for_workers() {
    let deployment = Deployment::start();
    let _first = deployment.worker("first");
    let _second = deployment.worker("second");
    let mut losses = Vec::new();
    for evaluation in ["coordinator", "workers"] {
        let job = finished(
            &deployment,
            &format!("--clients 4 --rounds 3 --validation 0.1 --evaluation {evaluation}"),
        );
        let records = rounds(&deployment, job);
        let of_job: Vec<_> = records
            .iter()
            .map(|record| record.validation_loss.unwrap())
            .collect();
        losses.push(of_job);
    }
    for (one, other) in losses[0].iter().zip(&losses[1]) {
        assert!((one - other).abs() < 1e-5, "{losses:?}");
    }
}

#[test]
fn each_workers_own_data_is_measured_client_by_client() {
    let deployment = Deployment::start();
    let _first = deployment.start_worker("--name first --local");
    let _second = deployment.start_worker("--name second --local");
    let job = deployment
        .submit("--partition local --clients 2 --rounds 2 --evaluation workers --validation 0.1");
    let (log, code) = deployment.watch(job).finish();
    assert_eq!(code, Some(0), "{log:#?}");
    let records = rounds(&deployment, job);
    for record in &records {
        assert_eq!(record.validation_by_client.len(), 2, "{record:?}");
        for client in &record.validation_by_client {
            assert_eq!(client.evaluation.examples, 144);
        }
    }
    let last = records.last().unwrap();
    assert_eq!(last.test_by_client.len(), 2);
    let whole = &last.test_by_client[0].evaluation;
    assert_eq!(whole.examples, 355, "the whole test split of each");
}

#[test]
fn a_model_is_evaluated_without_training() {
    let deployment = Deployment::start();
    let _worker = deployment.worker("only");
    let folder = tempfile::tempdir().unwrap();
    let run = format!(
        "simulate --rounds 3 --output {} --json",
        folder.path().display()
    );
    let trained = fedavg(&run);
    assert_eq!(trained.code, Some(0), "{trained:?}");
    let trained: serde_json::Value = serde_json::from_str(&trained.out).unwrap();
    let file = folder.path().join("model.safetensors");
    let job = deployment.submit(&format!("--rounds 0 --initial {}", file.display()));
    let (_, code) = deployment.watch(job).finish();
    assert_eq!(code, Some(0));
    let ended = summary(&deployment, job);
    assert_eq!(ended.version, ModelVersion(0));
    let test = ended.last_measured.unwrap().test.unwrap();
    assert_eq!(Some(test.loss), trained["test_loss"].as_f64());
    assert!(downloaded(&deployment, job, "") == model(folder.path()));
}

#[test]
fn a_submission_that_is_repeated_is_the_same_job() {
    let deployment = Deployment::start();
    let first = deployment.submit("--rounds 2 --key once");
    assert_eq!(deployment.submit("--rounds 2 --key once"), first);
    let another = deployment.operator("submit --rounds 3 --key once");
    assert_eq!(another.code, Some(3), "{another:?}");
    assert!(another.err.contains("another key"), "{another:?}");
    assert_ne!(deployment.submit("--rounds 2"), first);
    // The coordinator remembers it when it starts again.
    let deployment = deployment.restart("", |_| ());
    assert_eq!(deployment.submit("--rounds 2 --key once"), first);
}

#[test]
fn a_file_is_evaluated_here_and_its_model_is_found_by_its_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let run = fedavg(&format!(
        "simulate --model tiny_cnn --rounds 2 --output {} --json",
        folder.path().display()
    ));
    assert_eq!(run.code, Some(0), "{run:?}");
    let trained: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    let file = folder.path().join("model.safetensors");
    let evaluated = fedavg(&format!("evaluate {} --json", file.display()));
    assert_eq!(evaluated.code, Some(0), "{evaluated:?}");
    let evaluated: serde_json::Value = serde_json::from_str(&evaluated.out).unwrap();
    assert_eq!(evaluated["loss"], trained["test_loss"]);
    assert_eq!(evaluated["accuracy"], trained["test_accuracy"]);
    let wrong = fedavg(&format!("evaluate {} --model lenet", file.display()));
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    let missing = fedavg("evaluate no-such-file.safetensors");
    assert_eq!(missing.code, Some(2), "{missing:?}");
}

#[test]
fn from_init_to_the_end_of_a_job_and_its_clone() {
    let deployment = Deployment::start();
    let _worker = deployment.worker("only");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("job.toml");
    let init = fedavg(&format!("init {} --kind coordinator", file.display()));
    assert_eq!(init.code, Some(0), "{init:?}");
    assert!(init.err.contains("fedavg submit --watch"), "{init:?}");
    let job = deployment.submit(&format!("{} --rounds 2", file.display()));
    assert_eq!(deployment.operator(&format!("wait {job}")).code, Some(0));
    let logs = deployment.operator(&format!("logs {job}"));
    assert_eq!(logs.code, Some(0), "{logs:?}");
    let first = logs.out.lines().next().unwrap();
    assert!(first.starts_with("20"), "it begins with its time: {first}");
    assert!(logs.out.contains("version 2 of 2"), "{}", logs.out);
    let summary = summary(&deployment, job);
    let after = format!("logs {job} --json --after {}", summary.last_event - 1);
    let last = deployment.operator(&after);
    assert_eq!(last.out.lines().count(), 1, "{last:?}");

    let copy = folder.path().join("copy.toml");
    let cloned = deployment.operator(&format!("clone {job} --rounds 1 --to {}", copy.display()));
    assert_eq!(cloned.code, Some(0), "{cloned:?}");
    let again: JobSummary = deployment.ask(&format!("clone {job} --rounds 1"));
    assert_ne!(again.job, job);
    assert_eq!(again.spec.rounds, 1);
    assert_eq!(again.spec.validation, summary.spec.validation);
    assert_eq!(
        deployment.operator(&format!("wait {}", again.job)).code,
        Some(0)
    );
    let of_copy = deployment.submit(&copy.display().to_string());
    assert_eq!(
        deployment.operator(&format!("wait {of_copy}")).code,
        Some(0)
    );
    assert!(
        downloaded(&deployment, of_copy, "") == downloaded(&deployment, again.job, ""),
        "another job"
    );
    let forever = deployment.submit("--min-workers 9 --rounds 1");
    let impatient = deployment.operator(&format!("wait {forever} --timeout 0.1"));
    assert_eq!(impatient.code, Some(1), "{impatient:?}");
}

#[test]
fn shells_and_manuals_know_the_commands() {
    let script = fedavg("completions bash");
    assert_eq!(script.code, Some(0), "{}", script.err);
    assert!(script.out.contains("simulate") && script.out.contains("--stop-patience"));
    let folder = tempfile::tempdir().unwrap();
    let pages = fedavg(&format!("man {}", folder.path().display()));
    assert_eq!(pages.code, Some(0), "{pages:?}");
    let page = fs::read_to_string(folder.path().join("fedavg-submit.1")).unwrap();
    assert!(page.contains("continue"), "{page}");
}
