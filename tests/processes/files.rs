//! The files that commands read and write: checked before work starts, and kept when it fails.

use std::fs;

use fedavg::{cli::RunSummary, round::Outcome};

use super::deployment::fedavg;

/// A run of one short round that writes its files into a folder.
const SHORT: &str = "simulate --clients 2 --rounds 1 --local-epochs 1";

#[test]
fn an_earlier_run_is_replaced_only_if_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("run");
    let run = format!("{SHORT} --output {}", output.display());
    assert_eq!(fedavg(&run).code, Some(0));
    let again = fedavg(&run);
    assert_eq!(again.code, Some(2), "{again:?}");
    assert!(again.err.contains("--force"), "{again:?}");
    assert!(
        !again.err.contains("round 1"),
        "it trained first: {again:?}"
    );
    assert_eq!(fedavg(&format!("{run} --force")).code, Some(0));
}

#[test]
fn a_folder_that_can_not_be_written_is_told_before_anything_is_trained() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "mine").unwrap();
    for output in [file.clone(), file.join("below")] {
        let refused = fedavg(&format!("{SHORT} --output {}", output.display()));
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.err.contains("--output"), "{refused:?}");
        let lines = refused.err.lines().count();
        assert_eq!(lines, 1, "it began, or said so: {refused:?}");
    }
    assert_eq!(fs::read_to_string(file).unwrap(), "mine");
}

#[test]
fn a_run_that_fails_keeps_its_rounds_its_summary_and_the_last_good_model() {
    let folder = tempfile::tempdir().unwrap();
    let failed = fedavg(&format!(
        "simulate --clients 2 --lr 1e3 --rounds 60 --max-attempts 1 --output {}",
        folder.path().display()
    ));
    assert_eq!(failed.code, Some(1), "{failed:?}");
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    let summary: RunSummary = serde_json::from_str(&read("summary.json")).unwrap();
    assert!(matches!(summary.outcome, Some(Outcome::Failed { .. })));
    assert!(!read("rounds.jsonl").is_empty() && !read("events.jsonl").is_empty());
    assert!(folder.path().join("model.safetensors").exists());
}

#[test]
fn training_that_diverges_is_a_warning_with_short_numbers() {
    let run = fedavg("simulate --lr 1e3 --rounds 1 --json");
    let summary: RunSummary = serde_json::from_str(&run.out).unwrap();
    let warning = summary.warning.unwrap_or_default();
    assert!(warning.contains("training diverges"), "{run:?}");
    assert!(run.err.contains("warning: training diverges"), "{run:?}");
    assert!(run.err.lines().all(|line| line.len() < 250), "{run:?}");
}

#[test]
fn a_replay_needs_the_summary_all_rounds_and_the_same_initial_model() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let recorded = format!(
        "simulate --clients 4 --rounds 3 --local-epochs 1 --fraction 0.5 --output {}",
        place("first").display()
    );
    assert_eq!(fedavg(&recorded).code, Some(0));
    let rounds = place("first/rounds.jsonl");
    let replay = format!("simulate --replay {}", rounds.display());
    let repeated = fedavg(&format!("{replay} --output {}", place("second").display()));
    assert_eq!(repeated.code, Some(0), "{repeated:?}");
    let model = |run: &str| fs::read(place(run).join("model.safetensors")).unwrap();
    assert!(model("first") == model("second"));

    let other = format!(
        "{replay} --initial {}",
        place("first/model.safetensors").display()
    );
    let refused = fedavg(&other);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(
        refused.err.contains("the initial model is another one"),
        "{refused:?}"
    );

    let text = fs::read_to_string(&rounds).unwrap();
    let lines: Vec<_> = text.lines().collect();
    for (kept, problem) in [
        (vec![lines[0], lines[2]], "summary.json says 3"),
        (
            vec![lines[0], lines[2], lines[2]],
            "round 3 in place of round 2",
        ),
    ] {
        fs::write(&rounds, kept.join("\n")).unwrap();
        let refused = fedavg(&replay);
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.err.contains(problem), "{refused:?}");
    }

    fs::remove_file(place("first/summary.json")).unwrap();
    let refused = fedavg(&replay);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(
        refused.err.contains("summary.json is missing"),
        "{refused:?}"
    );
}

#[test]
fn a_simulation_without_its_data_fails_at_once() {
    let empty = tempfile::tempdir().unwrap();
    let failed = fedavg(&format!(
        "simulate --model cifar_cnn --dataset cifar10 --data-dir {}",
        empty.path().display()
    ));
    assert_eq!(failed.code, Some(2), "{failed:?}");
    assert!(
        failed.err.contains("cifar10") && !failed.err.contains("waiting"),
        "{failed:?}"
    );
    assert!(
        failed.err.contains(&empty.path().display().to_string()),
        "{failed:?}"
    );
}

#[test]
fn more_clients_than_examples_are_refused_at_once_whatever_their_number() {
    for flags in [
        "--clients 2000",
        "--clients 10000000",
        "--clients 4294967295",
        "--partition shard:11",
    ] {
        let refused = fedavg(&format!("simulate {flags}"));
        assert_eq!(refused.code, Some(2), "{flags}: {refused:?}");
        assert!(refused.err.contains("clients"), "{flags}: {refused:?}");
    }
}

#[test]
fn models_of_other_programs_are_shown_and_taken() {
    let folder = tempfile::tempdir().unwrap();
    let first = folder.path().join("first");
    assert_eq!(
        fedavg(&format!("{SHORT} --output {}", first.display())).code,
        Some(0)
    );
    let model = first.join("model.safetensors");
    let shown = fedavg(&format!("model inspect {}", model.display()));
    assert!(
        shown.out.contains("F32") && shown.out.contains("trainable"),
        "{shown:?}"
    );

    // The same with the names of a data-parallel wrapper.
    let bytes = fs::read(&model).unwrap();
    let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let mut header: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    header.remove("__metadata__");
    let wrapped: serde_json::Map<_, _> = header
        .into_iter()
        .map(|(name, tensor)| (format!("module.{name}"), tensor))
        .collect();
    let header = serde_json::to_vec(&wrapped).unwrap();
    let mut renamed = (header.len() as u64).to_le_bytes().to_vec();
    renamed.extend_from_slice(&header);
    renamed.extend_from_slice(&bytes[8 + length..]);
    let file = folder.path().join("wrapped.safetensors");
    fs::write(&file, renamed).unwrap();
    let run = fedavg(&format!("{SHORT} --initial {}", file.display()));
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.err.contains("took the prefix \"module.\""), "{run:?}");

    // PyTorch's count of batches is in the file, and no part of the model.
    let shown = fedavg("model inspect tests/fixtures/tiny_cnn.safetensors");
    assert!(shown.out.contains(", 3754 parameters, "), "{shown:?}");
    for line in shown.out.lines() {
        if line.contains("num_batches_tracked") {
            assert!(!line.contains("trainable"), "{line}");
        }
    }

    let pickle = folder.path().join("model.pt");
    fs::write(&pickle, b"PK\x03\x04archive/data.pkl").unwrap();
    let refused = fedavg(&format!("model inspect {}", pickle.display()));
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("torch.save"), "{refused:?}");
}
