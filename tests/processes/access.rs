//! Who gets in: the tokens of a coordinator's first start, those that operators make, and what is left of them anywhere.

use std::{fs, os::unix::fs::PermissionsExt};

use fedavg::protocol::{Admission, AuditAction, AuditEntry, TokenSummary, WorkerSummary};

use super::{
    deployment::{Deployment, binary},
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
