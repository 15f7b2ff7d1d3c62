//! Where secrets are not: a whole job over TLS, after which every log, file, answer and command line is looked through for them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    deployment::{Deployment, binary},
    process::{Finished, Process},
};

const FEDAVG: &str = env!("CARGO_BIN_EXE_fedavg");
const WORKER: &str = env!("CARGO_BIN_EXE_fedavg-worker");

/// All files below a folder.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn has(bytes: &[u8], secret: &str) -> bool {
    bytes
        .windows(secret.len())
        .any(|window| window == secret.as_bytes())
}

/// The command lines of all processes of this machine.
fn command_lines() -> Vec<u8> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        // Processes end while this looks at them.
        let line = entry.map(|entry| fs::read(entry.path().join("cmdline")));
        if let Ok(Ok(line)) = line {
            all.extend(line);
            all.push(b'\n');
        }
    }
    all
}

/// What is shown, by a name for the message if there is a secret in it.
struct Shown(Vec<(String, Vec<u8>)>);

impl Shown {
    fn add(&mut self, name: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.0.push((name.into(), bytes.into()));
    }

    fn add_ended(&mut self, name: &str, ended: &Finished) {
        self.add(format!("{name}: output"), ended.out.as_bytes());
        self.add(format!("{name}: log"), ended.err.as_bytes());
    }
}

#[test]
#[cfg(target_os = "linux")]
fn no_secret_is_in_a_log_a_file_an_answer_or_a_command_line() {
    let root = tempfile::tempdir().unwrap();
    let (join, admin) = ("marked-join-token-0123", "marked-admin-token-0123");
    let (join_file, admin_file) = (root.path().join("join"), root.path().join("admin"));
    fs::write(&join_file, join).unwrap();
    fs::write(&admin_file, admin).unwrap();
    let mut deployment = Deployment::with(&format!(
        "--bind 127.0.0.1:0 --tls-self-signed --log fedavg=trace,info --join-token-file {} --admin-token-file {}",
        join_file.display(),
        admin_file.display()
    ));
    let line = deployment.line().unwrap();
    let (_, fingerprint) = line.split_once(" --fingerprint ").unwrap();
    let fingerprint = fingerprint.split_whitespace().next().unwrap();
    let connect = format!(
        "--coordinator {} --fingerprint {fingerprint}",
        deployment.url
    );
    let mut shown = Shown(Vec::new());
    shown.add("the lines of the coordinator", line.as_bytes());

    let state = root.path().join("workers");
    let arguments = format!(
        "{connect} --name one --slots 2 --log fedavg=trace,info --state-dir {}",
        state.display()
    );
    let mut worker = binary(WORKER, &arguments);
    worker.env("FEDAVG_JOIN_TOKEN", join);
    let mut worker = Process::start(&mut worker);
    worker.err.until("registered");
    let ask = |token: &str, arguments: &str| {
        let mut command = binary(
            FEDAVG,
            &format!("{arguments} {connect} --log fedavg=trace,info"),
        );
        command.env("FEDAVG_TOKEN", token);
        Process::start(&mut command).finish()
    };
    let made = ask(admin, "token create ann --scope read");
    let reader = made.out.trim().to_string();
    assert!(reader.starts_with("fedavg_operator_"), "{made:?}");
    // It is printed there and nowhere else.
    shown.add("token create: log", made.err.as_bytes());
    let results = root.path().join("results");
    let wrong = "marked-wrong-token-0123";
    let commands = [
        (
            admin,
            "submit --clients 2 --rounds 2 --watch --json".to_string(),
        ),
        (admin, format!("results 1 --output {}", results.display())),
        (reader.as_str(), "status --json".to_string()),
        (reader.as_str(), "workers --json".to_string()),
        (reader.as_str(), "watch 1 --json".to_string()),
        (admin, "token list --json".to_string()),
        (admin, "audit --json".to_string()),
        (admin, "health --json".to_string()),
        (wrong, "status --json".to_string()),
        (join, "status --json".to_string()),
        (reader.as_str(), "token list --json".to_string()),
    ];
    for (token, arguments) in &commands {
        shown.add_ended(arguments, &ask(token, arguments));
    }
    shown.add("command lines", command_lines());

    // The worker's own token is in its own folder, and the key of the certificate in the coordinator's.
    let mut kept = Vec::new();
    files(&state, &mut kept);
    let mut own = None;
    for path in &kept {
        let text = String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
        if let Some((_, rest)) = text.split_once("fedavg_worker_") {
            own = Some((path.clone(), format!("fedavg_worker_{}", &rest[..64])));
        }
    }
    let (own_file, own) = own.expect("a worker keeps its token");
    let key_file = deployment.state().join("tls.pem");
    let pem = fs::read_to_string(&key_file).unwrap();
    let (_, key) = pem.split_once("PRIVATE KEY-----\n").unwrap();
    let key = key.lines().next().unwrap().to_string();

    worker.interrupt();
    shown.add_ended("the worker", &worker.finish());
    let mut all = kept;
    files(deployment.state(), &mut all);
    files(&results, &mut all);
    for path in all {
        if path != own_file && path != key_file {
            shown.add(path.display().to_string(), fs::read(&path).unwrap());
        }
    }
    shown.add_ended("the coordinator", &deployment.stop());
    let secrets = [join, admin, wrong, &reader, &own, &key];
    for (name, bytes) in &shown.0 {
        for secret in secrets {
            assert!(!has(bytes, secret), "{name} has {secret}");
        }
    }
    // It looks at something: each of these is shown, and has what it should have.
    assert!(shown.0.len() > 30, "{}", shown.0.len());
    assert!(
        shown
            .0
            .iter()
            .any(|(name, bytes)| name.contains("audit") && has(bytes, "job_submitted"))
    );
    assert!(
        shown
            .0
            .iter()
            .any(|(name, bytes)| name == "command lines" && has(bytes, "--tls-self-signed"))
    );
}
