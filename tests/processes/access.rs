//! Who gets in: the tokens of a coordinator's first start, those that operators make, and what is left of them anywhere.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use fedavg::protocol::{Admission, AuditAction, AuditEntry, TokenSummary, WorkerSummary};
use tempfile::TempDir;

use super::{
    deployment::{Deployment, binary, fedavg},
    process::{Finished, Process},
};

/// A closed coordinator, and the join token that its first start prints.
fn closed(arguments: &str) -> (Deployment, String) {
    let mut deployment = Deployment::with(&format!("--closed --bind 127.0.0.1:0 {arguments}"));
    let line = deployment.line().unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    let token = words
        .iter()
        .find_map(|word| word.strip_prefix("FEDAVG_JOIN_TOKEN="));
    let token = token.unwrap_or_else(|| panic!("{line}")).to_string();
    (deployment, token)
}

fn worker(deployment: &Deployment, token: &str, arguments: &str) -> Process {
    let url = &deployment.url;
    let arguments = format!("--coordinator {url} --in-memory {arguments}");
    let mut command = binary(env!("CARGO_BIN_EXE_fedavg-worker"), &arguments);
    command.env("FEDAVG_JOIN_TOKEN", token);
    Process::start(&mut command)
}

fn operator(deployment: &Deployment, token: &str, arguments: &str) -> Finished {
    let arguments = format!("{arguments} --coordinator {}", deployment.url);
    let mut command = binary(env!("CARGO_BIN_EXE_fedavg"), &arguments);
    if !token.is_empty() {
        command.env("FEDAVG_TOKEN", token);
    }
    Process::start(&mut command).finish()
}

fn refused(ended: &Finished, said: &str) {
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.err.contains(said), "{ended:?}");
}

#[test]
fn an_open_coordinator_stays_on_loopback() {
    let path = env!("CARGO_BIN_EXE_fedavg-coordinator");
    let ended = Process::start(&mut binary(path, "--open --bind 0.0.0.0:0")).finish();
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.err.contains("--open"), "{ended:?}");
}

#[test]
fn the_lines_of_the_first_start_add_a_worker_and_connect_an_operator_and_a_later_start_shows_no_secret()
 {
    let (mut deployment, join) = closed("");
    let line = deployment.line().unwrap();
    let file = deployment.admin_token();
    let expected = format!(
        "operators connect with: fedavg status --coordinator {} --token-file {}",
        deployment.url,
        file.display()
    );
    assert_eq!(line, expected);
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // On loopback, too, nobody gets in without a token, or with one for something else.
    refused(&operator(&deployment, "", "status"), "--token-file");
    refused(&operator(&deployment, &join, "status"), "for workers");
    let stranger = worker(&deployment, "", "").finish();
    refused(&stranger, "--join-token-file");
    assert_eq!(operator(&deployment, "", "health").code, Some(0));
    worker(&deployment, &join, "--name one")
        .err
        .until("registered");
    let run = deployment.operator("submit --clients 2 --rounds 1");
    assert_eq!(run.code, Some(0), "{run:?}");

    let mut later = deployment.restart("--closed", |_| {});
    let line = later.line().unwrap();
    assert!(
        line.ends_with("--join-token-file FILE") && !line.contains(&join),
        "{line}"
    );
    assert_eq!(later.line().unwrap(), expected);
    assert_eq!(later.operator("status").code, Some(0));
    worker(&later, &join, "--name two").err.until("registered");
    // Without the file, too, it says what to do.
    let without = later.restart("--closed", |state| {
        fs::remove_file(state.join("admin.token")).unwrap();
    });
    let told = without.stop();
    for part in ["fedavg token create NAME --join", "--admin-token-file FILE"] {
        assert!(told.err.contains(part), "{part}: {told:?}");
    }
}

#[test]
fn a_token_file_that_is_left_of_another_state_is_replaced() {
    let (deployment, _) = closed("");
    let former = fs::read_to_string(deployment.admin_token()).unwrap();
    let again = deployment.restart("--closed", |state| {
        for entry in fs::read_dir(state).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                fs::remove_dir_all(path).unwrap();
            } else if !path.ends_with("admin.token") {
                fs::remove_file(path).unwrap();
            }
        }
    });
    assert_eq!(again.operator("status").code, Some(0));
    assert_ne!(fs::read_to_string(again.admin_token()).unwrap(), former);
}

#[test]
fn tokens_are_made_listed_and_revoked() {
    let (deployment, _) = closed("");
    let made = |arguments: &str| {
        let made = deployment.operator(&format!("token create {arguments}"));
        assert_eq!(made.code, Some(0), "{made:?}");
        made.out.trim().to_string()
    };
    let reader = made("ann --scope read");
    assert!(reader.starts_with("fedavg_operator_"));
    assert_eq!(operator(&deployment, &reader, "workers").code, Some(0));
    refused(
        &operator(&deployment, &reader, "submit --rounds 1"),
        "needs submit",
    );
    refused(&operator(&deployment, &reader, "token list"), "needs admin");

    let once = made("site --join --uses 1");
    worker(&deployment, &once, "--name one")
        .err
        .until("registered");
    refused(&worker(&deployment, &once, "--name two").finish(), "site");

    let tokens: Vec<TokenSummary> = deployment.ask("token list");
    let names: Vec<&str> = tokens.iter().map(|token| token.name.as_str()).collect();
    assert_eq!(names, ["admin", "first", "ann", "site"]);
    assert_eq!(tokens[3].uses_left, Some(0));
    let revoked = deployment.operator(&format!("token revoke {}", tokens[2].token));
    assert_eq!(revoked.code, Some(0), "{revoked:?}");
    refused(&operator(&deployment, &reader, "workers"), "was revoked");

    let file = deployment.state().join("bob.token");
    let written = made(&format!("bob --scope admin --output {}", file.display()));
    assert!(!written.contains("fedavg_operator_"), "{written}");
    let bob = format!("token list --token-file {}", file.display());
    assert_eq!(operator(&deployment, "", &bob).code, Some(0));
    let again = deployment.operator(&format!(
        "token create bob --scope admin --output {}",
        file.display()
    ));
    assert_eq!(again.code, Some(2), "{again:?}");

    let audit: Vec<AuditEntry> = deployment.ask("audit");
    let of_admin = audit.iter().filter(|entry| entry.by == "admin");
    let actions: Vec<_> = of_admin.map(|entry| entry.action).collect();
    let expected = [
        AuditAction::TokenCreated,
        AuditAction::TokenCreated,
        AuditAction::TokenRevoked,
        AuditAction::TokenCreated,
    ];
    assert_eq!(actions, expected);
    assert_eq!(deployment.operator("audit").code, Some(0));
}

#[test]
fn a_worker_waits_for_its_approval_and_can_be_put_out() {
    let (deployment, join) = closed("--approve");
    let mut waiting = worker(&deployment, &join, "--name one");
    waiting.err.until("registered");
    let workers: Vec<WorkerSummary> = deployment.ask("workers");
    assert_eq!(workers[0].admission, Admission::Pending);
    let shown = deployment.operator("workers");
    assert!(shown.out.contains("live, pending"), "{shown:?}");
    let job = deployment.submit("--clients 2 --rounds 1");
    let approved = deployment.operator("workers approve 1");
    assert_eq!(approved.code, Some(0), "{approved:?}");
    let (log, code) = deployment.watch(job).finish();
    assert_eq!(code, Some(0), "{log:?}");
    let revoked = deployment.operator("workers revoke 1");
    assert_eq!(revoked.code, Some(0), "{revoked:?}");
    assert!(revoked.err.contains("first"), "{revoked:?}");
    waiting.err.until("registering again");
    let unknown = deployment.operator("workers approve 77");
    refused(&unknown, "no worker 77");
}

/// A coordinator that ends by itself.
fn ended(arguments: &str) -> Finished {
    let path = env!("CARGO_BIN_EXE_fedavg-coordinator");
    Process::start(&mut binary(path, arguments)).finish()
}

#[test]
fn a_first_start_that_fails_leaves_the_next_one_a_first_one() {
    let folder = TempDir::new().unwrap();
    let state = folder.path().join("state");
    let missing = folder.path().join("missing/admin.token");
    let arguments = |rest: &str| {
        let state = state.display();
        format!("--bind 127.0.0.1:0 --state-dir {state} {rest}")
    };
    let failed = ended(&arguments(&format!(
        "--admin-token-file {}",
        missing.display()
    )));
    assert_eq!(failed.code, Some(2), "{failed:?}");
    assert!(failed.err.contains("admin.token"), "{failed:?}");
    let failed = ended(&arguments("--max-tokens 1"));
    assert_eq!(failed.code, Some(2), "{failed:?}");

    let path = env!("CARGO_BIN_EXE_fedavg-coordinator");
    let mut first = Process::start(&mut binary(path, &arguments("")));
    let url = first.out.until("listening on ");
    let url = url.trim_start_matches("listening on ");
    let line = first.out.until("join with: ");
    assert!(line.contains("FEDAVG_JOIN_TOKEN=fedavg_join_"), "{line}");
    let file = state.join("admin.token");
    let list = format!(
        "token list --json --coordinator {url} --token-file {}",
        file.display()
    );
    let tokens = fedavg(&list);
    let tokens: Vec<TokenSummary> = serde_json::from_str(&tokens.out).unwrap();
    let names: Vec<&str> = tokens.iter().map(|token| token.name.as_str()).collect();
    assert_eq!(names, ["admin", "first"]);
    assert!(!state.join("first-start").exists());
    for folder in folders(&state) {
        let mode = fs::metadata(&folder).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", folder.display());
    }
}

/// A folder and all below it.
fn folders(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_path_buf()];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(folders(&path));
        }
    }
    found
}

#[test]
fn a_first_start_that_was_killed_before_its_tokens_were_shown_is_repeated() {
    let (deployment, join) = closed("");
    let former = fs::read_to_string(deployment.admin_token()).unwrap();
    let mut again = deployment.restart("--closed", |state| {
        // As it is until the lines are printed.
        fs::write(state.join("first-start"), "").unwrap();
    });
    let line = again.line().unwrap();
    assert!(
        line.contains("FEDAVG_JOIN_TOKEN=") && !line.contains(&join),
        "{line}"
    );
    assert_eq!(again.operator("status").code, Some(0));
    refused(&operator(&again, former.trim(), "status"), "was revoked");
}

#[test]
fn a_first_start_that_is_repeated_keeps_the_token_in_a_file_that_it_was_told() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("ann.token");
    let flags = format!("--closed --admin-token-file {}", file.display());
    let deployment = Deployment::with(&format!("--bind 127.0.0.1:0 {flags}"));
    let former = fs::read_to_string(&file).unwrap();
    let mut again = deployment.restart(&flags, |state| {
        fs::write(state.join("first-start"), "").unwrap();
    });
    let line = again.line().unwrap();
    assert!(line.contains("FEDAVG_JOIN_TOKEN="), "{line}");
    let line = again.line().unwrap();
    assert!(
        line.ends_with(&format!("--token-file {}", file.display())),
        "{line}"
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), former);
    assert_eq!(operator(&again, former.trim(), "token list").code, Some(0));
}

#[test]
fn a_token_that_can_t_be_written_does_not_count() {
    let (deployment, _) = closed("");
    let missing = deployment.state().join("missing/ann.token");
    let create = "token create ann --scope read";
    let failed = deployment.operator(&format!("{create} --output {}", missing.display()));
    assert_eq!(failed.code, Some(2), "{failed:?}");
    let mut command = binary(
        env!("CARGO_BIN_EXE_fedavg"),
        &format!("{create} --coordinator {}", deployment.url),
    );
    command.env("FEDAVG_TOKEN_FILE", deployment.admin_token());
    let mut into = |device: &str| {
        let device = fs::File::options().write(true).open(device).unwrap();
        command.stdout(device).output().unwrap()
    };
    // What is written there is lost: nothing is made.
    assert_eq!(into("/dev/null").status.code(), Some(2));
    let names = |deployment: &Deployment| {
        let tokens: Vec<TokenSummary> = deployment.ask("token list");
        let of = |token: TokenSummary| (token.name, token.revoked.is_some());
        tokens.into_iter().map(of).collect::<Vec<_>>()
    };
    let first = [("admin".to_string(), false), ("first".to_string(), false)];
    assert_eq!(names(&deployment), first);
    let full = into("/dev/full");
    let told = String::from_utf8_lossy(&full.stderr).into_owned();
    assert_eq!(full.status.code(), Some(1), "{told}");
    assert!(told.contains("revoked"), "{told}");
    assert_eq!(names(&deployment)[2], ("ann".to_string(), true));
}

#[test]
fn who_watches_a_job_sees_nothing_after_the_end_of_the_token() {
    let (deployment, _) = closed("");
    let made = deployment.operator("token create ann --scope read");
    let job = deployment.submit("--clients 2 --rounds 1");
    let arguments = format!("watch {job} --json --coordinator {}", deployment.url);
    let mut command = binary(env!("CARGO_BIN_EXE_fedavg"), &arguments);
    command.env("FEDAVG_TOKEN", made.out.trim());
    let mut watch = Process::start(&mut command);
    // The stream is open from here on, and nothing happens in the job, which waits for workers.
    assert!(watch.out.next().is_some());
    let revoked = deployment.operator("token revoke 3");
    assert_eq!(revoked.code, Some(0), "{revoked:?}");
    let ended = watch.finish();
    refused(&ended, "was revoked");
}

#[test]
fn a_worker_that_is_put_out_is_told_at_once_and_says_why() {
    // Its poll is held for longer than this test waits for a line.
    let (deployment, join) = closed("--poll-wait 600 --worker-expiry 6000");
    let mut waiting = worker(&deployment, &join, "--name one");
    waiting.err.until("registered");
    let revoked = deployment.operator("workers revoke 1");
    assert_eq!(revoked.code, Some(0), "{revoked:?}");
    let told = waiting.err.until("registering again");
    assert!(told.contains("token was revoked"), "{told}");
    let shown = deployment.operator("workers");
    assert!(shown.out.contains("left, revoked"), "{shown:?}");
    refused(&deployment.operator("workers approve 1"), "register again");
}

#[test]
fn a_worker_that_is_stopped_and_started_is_no_further_use_of_its_token() {
    let (deployment, _) = closed("");
    let once = deployment.operator("token create site --join --uses 1");
    let once = once.out.trim();
    for _ in 0..2 {
        let mut site = worker(&deployment, once, "--name one");
        site.err.until("registered");
        site.interrupt();
        let left = site.finish();
        assert_eq!(left.code, Some(0), "{left:?}");
    }
    refused(&worker(&deployment, once, "--name two").finish(), "site");
}

#[test]
fn a_later_start_shows_no_file_whose_token_counts_no_more() {
    let (deployment, _) = closed("");
    let other = deployment.state().join("ann.token");
    let made = deployment.operator(&format!(
        "token create ann --scope admin --output {}",
        other.display()
    ));
    assert_eq!(made.code, Some(0), "{made:?}");
    let revoked = deployment.operator("token revoke 1");
    assert_eq!(revoked.code, Some(0), "{revoked:?}");
    let mut later = deployment.restart("--closed", |_| {});
    later.line().unwrap();
    let line = later.line().unwrap();
    assert!(line.ends_with("--token-file FILE"), "{line}");
    let told = later.stop();
    assert!(told.err.contains("was revoked"), "{told:?}");
}

#[test]
fn flags_that_contradict_each_other_are_refused() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "sixteen-letters-and-more").unwrap();
    let (file, state) = (file.display(), folder.path().join("state"));
    let fingerprint = "0".repeat(64);
    for (flags, said) in [
        (
            format!("--admin-token-file {file} --join-token-file {file}"),
            "the same",
        ),
        (
            format!("--open --admin-token-file {file}"),
            "--admin-token-file",
        ),
        (
            format!("--open --join-token-file {file}"),
            "--join-token-file",
        ),
        ("--allow-host lab".to_string(), "--open"),
        (
            format!("--allow-worker sha256:{fingerprint}"),
            "--tls-client-ca",
        ),
        (
            "--tls-self-signed --advertise http://lab:8000".to_string(),
            "--advertise lab",
        ),
        (format!("--state-dir {file}"), "--state-dir"),
    ] {
        let mut flags = format!("--bind 127.0.0.1:0 {flags}");
        if !flags.contains("--state-dir") {
            flags = format!("{flags} --state-dir {}", state.display());
        }
        let ended = ended(&flags);
        assert_eq!(ended.code, Some(2), "{flags}: {ended:?}");
        assert!(ended.err.contains(said), "{flags}: {ended:?}");
    }
    assert!(!state.exists());
}

#[test]
fn secrets_that_others_can_read_are_told_of() {
    let (deployment, _) = closed("");
    let file = deployment.admin_token();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let told = deployment.operator("status");
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(told.err.contains("chmod 600"), "{told:?}");
    let later = deployment.restart("--closed", |state| {
        fs::set_permissions(state, fs::Permissions::from_mode(0o755)).unwrap();
    });
    let told = later.stop();
    assert!(told.err.contains("chmod 700"), "{told:?}");
}

#[test]
fn a_refusal_is_in_the_log_under_the_number_that_its_sender_got() {
    let (deployment, _) = closed("--log fedavg=debug");
    let told = operator(&deployment, "a-token-that-nobody-knows", "status");
    refused(&told, "not known");
    let log = deployment.stop().err;
    let warned: Vec<_> = log
        .lines()
        .filter(|line| line.contains("wrong credentials"))
        .collect();
    assert_eq!(warned.len(), 1, "{log}");
    let refusal = log
        .lines()
        .find(|line| line.contains("refused: the token is not known"));
    let refusal = refusal.unwrap_or_else(|| panic!("{log}"));
    for part in ["DEBUG", "127.0.0.1", "request{id=", "401"] {
        assert!(refusal.contains(part), "{part}: {refusal}");
    }
}
