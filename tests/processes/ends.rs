//! How commands end: their exit codes, Ctrl-C, and readers that go away.

use std::{
    fs,
    io::pipe,
    process::{Command, Stdio},
};

use fedavg::{cli::RunSummary, round::Outcome, telemetry::parse_rounds};

use super::{
    deployment::{Deployment, binary, fedavg},
    process::Process,
};

#[test]
fn each_kind_of_failure_has_its_exit_code_and_one_line() {
    let deployment = Deployment::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("job.toml");
    fs::write(&file, "rounds = 3\nlearning_rate = 1\n").unwrap();
    let file = file.display();
    // Nobody listens on port 1.
    let nobody = "--coordinator http://127.0.0.1:1";
    let here = format!("--coordinator {}", deployment.url);
    for (code, arguments, said) in [
        (2, "simulate --rounds many".to_string(), "--rounds"),
        (2, "simulate --nonsense".to_string(), "--nonsense"),
        (
            2,
            "simulate --rounds 0 --evaluation never".to_string(),
            "rounds is 0",
        ),
        (2, format!("submit {file} {here}"), "job.toml: line 2"),
        (2, "status --coordinator ftp://lab".to_string(), "ftp://lab"),
        (4, format!("status {nobody}"), "http://127.0.0.1:1"),
        (4, format!("submit {nobody}"), "http://127.0.0.1:1"),
        // A job is made of arguments, whoever finds out that it can't be.
        (2, "simulate --model nonsense".to_string(), "nonsense"),
        (2, format!("submit --model nonsense {here}"), "nonsense"),
        (2, format!("submit --dataset nonsense {here}"), "nonsense"),
        (
            2,
            "simulate --strategy fedadm".to_string(),
            "did you mean fedadam?",
        ),
        (
            2,
            format!("submit --strategy fedadm {here}"),
            "did you mean fedadam?",
        ),
        (
            2,
            format!("submit --strategy-set sampler=bysize {here}"),
            "did you mean by_size?",
        ),
        (2, "strategies fedadm".to_string(), "did you mean fedadam?"),
        (
            2,
            "simulate --initial /nowhere".to_string(),
            "error: /nowhere: ",
        ),
        // Warnings are for jobs that are taken.
        (
            2,
            format!("submit --strategy-set depth=3 --optimizer adam --momentum 1 {here}"),
            "strategy.depth is no parameter",
        ),
        (
            3,
            format!("watch 77 {here}"),
            "error: no job 77; \"fedavg status\" lists them",
        ),
        (
            2,
            format!(
                "data fingerprint cifar10 --data-dir {}",
                folder.path().display()
            ),
            "fedavg data download cifar10",
        ),
        (
            2,
            format!(
                "simulate --dataset cifar10 --data-dir {}",
                folder.path().display()
            ),
            "fedavg data download cifar10",
        ),
        (
            2,
            format!("status --token-file /nowhere {here}"),
            "--token-file /nowhere: ",
        ),
        (2, "model inspect /dev/null".to_string(), "/dev/null"),
    ] {
        let ended = fedavg(&arguments);
        assert_eq!(ended.code, Some(code), "{arguments}: {ended:?}");
        assert!(ended.err.contains(said), "{arguments}: {ended:?}");
        assert!(ended.out.is_empty(), "{arguments}: {ended:?}");
        // What clap says of arguments has a hint below.
        if !ended.err.contains("try '--help'") {
            assert_eq!(ended.err.lines().count(), 1, "{arguments}: {ended:?}");
            assert!(ended.err.starts_with("error: "), "{arguments}: {ended:?}");
        }
    }
}

#[test]
fn a_signal_cancels_a_simulation_and_keeps_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = format!(
        "simulate --rounds 1000000 --output {}",
        folder.path().display()
    );
    let mut simulation = Process::start(&mut binary(env!("CARGO_BIN_EXE_fedavg"), &arguments));
    simulation.err.until("round 3: version 3");
    // The terminal was closed; Ctrl-C and SIGTERM take the same way. What closes it may send a second signal at once, which
    // must not cost the results.
    simulation.hang_up();
    simulation.interrupt();
    let ended = simulation.finish();
    assert_eq!(ended.code, Some(130), "{ended:?}");
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    let summary: RunSummary = serde_json::from_str(&read("summary.json")).unwrap();
    assert_eq!(summary.outcome, Some(Outcome::Cancelled));
    let rounds = parse_rounds(&read("rounds.jsonl")).unwrap();
    assert!(rounds.len() >= 3 && rounds.len() == summary.rounds_committed);
    assert!(folder.path().join("model.safetensors").exists());
}

#[test]
fn ctrl_c_stops_watching_a_job_and_the_job_goes_on() {
    let deployment = Deployment::start();
    let _worker = deployment.worker("only");
    let arguments = format!(
        "submit --clients 2 --rounds 1000000 --watch --coordinator {}",
        deployment.url
    );
    for arguments in [
        arguments,
        format!("watch 1 --coordinator {}", deployment.url),
    ] {
        let mut watching = Process::start(&mut binary(env!("CARGO_BIN_EXE_fedavg"), &arguments));
        watching.err.until("round 1: version 1");
        watching.interrupt();
        let ended = watching.finish();
        assert_eq!(ended.code, Some(130), "{ended:?}");
        let advice = "\"fedavg watch 1\" shows it, \"fedavg cancel 1\" ends it";
        assert!(ended.err.contains(advice), "{ended:?}");
    }
    assert_eq!(deployment.operator("cancel 1").code, Some(0));
}

#[test]
fn an_overflow_is_said_once_with_its_tensor_and_what_to_do() {
    let ended = fedavg("simulate --lr 100 --encoding f16 --max-attempts 2");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let (lines, last): (Vec<_>, _) = (ended.err.lines().collect(), ended.err.lines().last());
    let last = last.unwrap();
    for part in [
        "8 clients failed: ",
        "tensor \"fc1.bias\" has the value ",
        "the largest of f16 is 65504",
        "lower the learning rate (--lr), or choose --encoding bf16 or f32",
    ] {
        assert!(last.contains(part), "{part}: {ended:?}");
    }
    // Of the clients one is named; the rounds' and the job's ends say how many there are.
    let of_clients = lines.iter().filter(|line| line.contains(": client "));
    assert_eq!(of_clients.count(), 1, "{ended:?}");
}

#[test]
fn a_model_that_is_written_to_standard_output_is_the_model_alone() {
    let deployment = Deployment::start();
    let _worker = deployment.worker("only");
    let run = deployment.operator("submit --clients 2 --rounds 1 --watch");
    assert_eq!(run.code, Some(0), "{run:?}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    let download = format!("model download 1 --output {}", file.display());
    assert_eq!(deployment.operator(&download).code, Some(0));
    for flag in ["", " --json"] {
        let arguments = format!(
            "model download 1 --output /dev/stdout --coordinator {}{flag}",
            deployment.url
        );
        let output = binary(env!("CARGO_BIN_EXE_fedavg"), &arguments)
            .stdout(Stdio::piped())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert!(output.stdout == fs::read(&file).unwrap(), "{flag}");
    }
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let arguments = format!(
        "model download 1 --output /dev/stdout --coordinator {}",
        deployment.url
    );
    let mut unread = binary(env!("CARGO_BIN_EXE_fedavg"), &arguments);
    let output = unread
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert!(output.stderr.is_empty(), "{output:?}");
    // Redirected to the end of a file, as `>>` does.
    let appended = folder.path().join("appended");
    fs::write(&appended, "before").unwrap();
    let end = fs::File::options().append(true).open(&appended).unwrap();
    let arguments = format!(
        "model download 1 --output /dev/stdout --coordinator {}",
        deployment.url
    );
    let mut command = binary(env!("CARGO_BIN_EXE_fedavg"), &arguments);
    assert!(command.stdout(end).status().unwrap().success());
    let expected = [b"before", &*fs::read(&file).unwrap()].concat();
    assert!(fs::read(&appended).unwrap() == expected);
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let mut command: Command = binary(env!("CARGO_BIN_EXE_fedavg"), "openapi");
    let output = command
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert!(
        output.stderr.is_empty(),
        "{:?}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn variables_that_are_set_to_nothing_count_as_unset() {
    let mut command = binary(env!("CARGO_BIN_EXE_fedavg"), "health --json");
    for variable in [
        "FEDAVG_COORDINATOR",
        "FEDAVG_TOKEN",
        "FEDAVG_TOKEN_FILE",
        "RUST_LOG",
    ] {
        command.env(variable, "");
    }
    let ended = Process::start(&mut command).finish();
    // Somebody's coordinator may listen on the usual port; what matters is that it was asked.
    assert!(matches!(ended.code, Some(0 | 4)), "{ended:?}");
}

#[test]
fn log_lines_that_nobody_reads_hang_and_kill_nothing() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let arguments = "simulate --clients 2 --rounds 2 --log debug --json";
    let output = binary(env!("CARGO_BIN_EXE_fedavg"), arguments)
        .stdout(Stdio::piped())
        .stderr(writer)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let summary: RunSummary = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary.outcome, Some(Outcome::Completed));
}

#[test]
fn no_control_character_of_a_job_or_a_path_reaches_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("o\u{1b}[31m");
    let job = folder.path().join("job.toml");
    fs::write(&job, "model = \"\\u001b[31mred\"\n").unwrap();
    let program = env!("CARGO_BIN_EXE_fedavg");
    let mut runs = [
        binary(program, "simulate --rounds 1 --output"),
        binary(program, "simulate"),
    ];
    runs[0].arg(&output);
    runs[1].arg(&job);
    for run in &mut runs {
        let finished = run.output().unwrap();
        for text in [finished.stdout, finished.stderr] {
            let text = String::from_utf8(text).unwrap();
            assert!(!text.contains('\u{1b}'), "{text:?}");
        }
    }
}
