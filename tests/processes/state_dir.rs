//! `fedavg-coordinator state`, and a state folder that an earlier version of this program wrote.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use fedavg::{
    ids::{ClientId, JobId, WorkerId},
    protocol::{Health, JobSummary},
    round::{JobEvent, Outcome},
};
use serde_json::Value;

use super::{
    deployment::{Watch, binary, fedavg},
    process::{Finished, Process},
};

/// A coordinator on a folder, with its address.
fn coordinator(folder: &Path, arguments: &str) -> (Process, String) {
    let path = env!("CARGO_BIN_EXE_fedavg-coordinator");
    let mut command = binary(path, &format!("--open --bind 127.0.0.1:0 {arguments}"));
    command.arg("--state-dir").arg(folder);
    let mut process = Process::start(&mut command);
    let line = process.out.until("listening on ");
    let url = line.trim_start_matches("listening on ").to_string();
    (process, url)
}

fn worker(url: &str, arguments: &str) -> Process {
    let path = env!("CARGO_BIN_EXE_fedavg-worker");
    let arguments = format!("--in-memory --coordinator {url} {arguments}");
    let mut worker = Process::start(&mut binary(path, &arguments));
    worker.err.until("registered");
    worker
}

/// `fedavg-coordinator state` with these arguments.
fn state<const N: usize>(arguments: [&dyn AsRef<std::ffi::OsStr>; N]) -> Finished {
    let mut command: Command = binary(env!("CARGO_BIN_EXE_fedavg-coordinator"), "state");
    // It is for a coordinator, and must not get into the way of a command.
    command.env("FEDAVG_JOIN_TOKEN", "secret-of-a-coordinator");
    for argument in arguments {
        command.arg(argument.as_ref());
    }
    Process::start(&mut command).finish()
}

fn check(folder: &Path) -> Finished {
    state([&"check", &folder])
}

/// The report of `state check --json`, whatever it found.
fn report(folder: &Path) -> Value {
    let checked = state([&"check", &"--json", &folder]);
    serde_json::from_str(&checked.out).unwrap_or_else(|error| panic!("{error}: {checked:?}"))
}

/// Every file and folder below a folder, files with their bytes.
fn tree(folder: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let bytes = if path.is_dir() {
                folders.push(path.clone());
                None
            } else {
                Some(fs::read(&path).unwrap())
            };
            found.insert(path.strip_prefix(folder).unwrap().to_path_buf(), bytes);
        }
    }
    found
}

/// A copy of the fixture.
fn fixture() -> tempfile::TempDir {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/state-1");
    let copy = tempfile::tempdir().unwrap();
    for (path, bytes) in tree(&root) {
        let path = copy.path().join(path);
        match bytes {
            Some(bytes) => fs::write(path, bytes).unwrap(),
            None => fs::create_dir(path).unwrap(),
        }
    }
    copy
}

fn file_like(folder: &Path, part: &str) -> PathBuf {
    let tree = tree(folder);
    let mut files = tree.iter().filter(|(_, bytes)| bytes.is_some());
    let found = files.find(|(path, _)| path.to_str().unwrap().contains(part));
    folder.join(
        found
            .unwrap_or_else(|| panic!("no {part} in {:?}", tree.keys()))
            .0,
    )
}

/// Changes one byte in the middle of a file.
fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    fs::write(path, bytes).unwrap();
}

/// Nothing in a state folder may be read by others.
fn private(folder: &Path) {
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(folder), 0o700);
    let tree = tree(folder);
    for (name, _) in tree.iter().filter(|(_, bytes)| bytes.is_some()) {
        assert_eq!(mode(&folder.join(name)), 0o600, "{}", name.display());
    }
    for part in ["model.safetensors", "alive", "lock", "journal.db"] {
        assert!(tree.keys().any(|name| name.ends_with(part)), "no {part}");
    }
}

/// How `tests/fixtures/state-1` was made, by the version that first had `state check`; `scripts/make-state-fixture` does all of
/// it: a coordinator with `--max-running 1`, workers "one" and "two". Job 1 trained `tiny_cnn` on `digits` for a round and
/// completed. Then worker "two" was stopped (SIGSTOP), and jobs 2 and 3 were submitted: job 2 began, with three clients, of which
/// worker "one" reported its own, and job 3 was queued. Then the coordinator was killed, and the journal's WAL was merged into
/// it with the `sqlite3` program.
///
/// It must stay readable: whoever updates fedavg has such a folder. So don't make it again for a new form of the journal, but
/// another one beside it.
#[test]
fn a_folder_of_an_earlier_version_goes_on() {
    let folder = fixture();
    let before = tree(folder.path());
    let checked = check(folder.path());
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(checked.out.contains("queue: 3\n"), "{checked:?}");
    assert!(checked.out.contains("all is well"), "{checked:?}");
    assert!(before == tree(folder.path()), "it changed something");
    let report = report(folder.path());
    let stage = |job: usize| report["jobs"][job]["stage"].as_str();
    assert_eq!(
        [stage(0), stage(1), stage(2)],
        [Some("ended"), Some("running"), Some("queued")]
    );
    let kept = report["jobs"][1]["reports"].as_u64().unwrap();
    assert!(kept > 0 && kept < 3, "{report:#}");
    assert_eq!(report["workers"].as_array().unwrap().len(), 2);

    let limits = "--max-running 1 --heartbeat 0.2 --worker-expiry 1";
    let (_coordinator, url) = coordinator(folder.path(), limits);
    let model = folder.path().join("downloaded.safetensors");
    let download = format!(
        "model download 1 --output {} --coordinator {url}",
        model.display()
    );
    let downloaded = fedavg(&download);
    assert_eq!(downloaded.code, Some(0), "{downloaded:?}");
    let original = folder.path().join("models/job-1/v1/model.safetensors");
    assert!(fs::read(model).unwrap() == fs::read(original).unwrap());
    let status = fedavg(&format!("status 3 --json --coordinator {url}"));
    let status: JobSummary = serde_json::from_str(&status.out).unwrap();
    assert_eq!(status.phase, "queued");

    // The two workers are long gone; this one does what they did not.
    let _worker = worker(&url, "--name three");
    let (log, code) = Watch::at(&url, JobId(2)).finish();
    assert_eq!(code, Some(0), "{log:#?}");
    let mut earlier = Vec::new();
    let mut committed = Vec::new();
    for entry in &log {
        match &entry.event {
            JobEvent::ReportAccepted { client, worker, .. } if *worker <= WorkerId(2) => {
                earlier.push(*client);
            }
            JobEvent::RoundCommitted { folded, .. } => committed.push(folded.clone()),
            JobEvent::RoundAbandoned { .. } => panic!("the round was lost: {log:#?}"),
            _ => {}
        }
    }
    assert_eq!(earlier.len() as u64, kept, "{log:#?}");
    assert_eq!(committed, [[0, 1, 2].map(ClientId)], "{log:#?}");
    assert_eq!(Watch::at(&url, JobId(3)).finish().1, Some(0));
}

#[test]
fn damage_is_told_with_the_file_and_what_is_lost() {
    let folder = fixture();
    let told = |file: &Path, cost: &str| {
        let checked = check(folder.path());
        assert_eq!(checked.code, Some(1), "{checked:?}");
        let problems: Vec<_> = checked
            .out
            .lines()
            .filter(|line| line.starts_with("problem: "))
            .collect();
        let [problem] = problems[..] else {
            panic!("{checked:?}");
        };
        let name = file.strip_prefix(folder.path()).unwrap().to_str().unwrap();
        assert!(problem.contains(name), "{problem}");
        assert!(problem.ends_with(cost), "{problem}");
    };
    for (part, cost) in [
        ("spool/job-2", "round 1 of job 2 starts over"),
        ("models/job-2/v0", "job 2 can't go on"),
        ("models/job-1/v1", "version 1 of job 1 can't be downloaded"),
        ("models/job-3/v0", "job 3 can't go on"),
    ] {
        let file = file_like(folder.path(), part);
        let whole = fs::read(&file).unwrap();
        damage(&file);
        told(&file, cost);
        fs::remove_file(&file).unwrap();
        told(&file, cost);
        fs::write(&file, &whole).unwrap();
    }
    assert_eq!(check(folder.path()).code, Some(0));

    // What nothing refers to is no damage.
    let left = folder.path().join("spool/job-2/round-1/client-0-9.part");
    fs::write(&left, "begun").unwrap();
    let checked = check(folder.path());
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(checked.out.contains("client-0-9.part"), "{checked:?}");

    let journal = folder.path().join("journal.db");
    let bytes = fs::read(&journal).unwrap();
    fs::write(&journal, &bytes[..bytes.len() / 2]).unwrap();
    let checked = check(folder.path());
    assert_eq!(checked.code, Some(1), "{checked:?}");
    assert!(checked.out.contains("problem: journal.db: "), "{checked:?}");
    for is_empty in [true, false] {
        if is_empty {
            fs::write(&journal, []).unwrap();
        } else {
            fs::remove_file(&journal).unwrap();
        }
        let checked = check(folder.path());
        assert_eq!(checked.code, Some(1), "{checked:?}");
        let told = "problem: journal.db: it is missing or empty";
        assert!(checked.out.contains(told), "{checked:?}");
        // Nobody knows what it referred to.
        assert!(!checked.out.contains("nothing refers to"), "{checked:?}");
        assert_eq!(journal.exists(), is_empty);
    }
    // Another folder.
    fs::remove_file(folder.path().join("alive")).unwrap();
    assert_eq!(check(folder.path()).code, Some(2));
}

#[test]
fn what_is_exported_while_it_trains_goes_on_elsewhere() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let (running, url) = coordinator(&at("running"), "");
    let _worker = worker(&url, "--name one --slots 2");
    let short = "--model tiny_cnn --clients 2 --local-epochs 1";
    let ended = fedavg(&format!(
        "submit {short} --rounds 1 --watch --coordinator {url}"
    ));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let begun = fedavg(&format!(
        "submit {short} --rounds 1000000 --coordinator {url}"
    ));
    assert_eq!(begun.code, Some(0), "{begun:?}");
    let mut watch = Watch::at(&url, JobId(2));
    let mut committed = 0;
    for copy in 0..8 {
        // Another round each time, whose model takes the last one's place meanwhile.
        committed = watch.until(|entry| match entry.event {
            JobEvent::RoundCommitted { round, .. } if round.0 > committed => Some(round.0),
            _ => None,
        });
        let file = at(&format!("{copy}.tar"));
        let exported = state([&"export", &at("running"), &file]);
        assert_eq!(exported.code, Some(0), "{exported:?}");
        let imported = state([&"import", &file, &at(&copy.to_string())]);
        assert_eq!(imported.code, Some(0), "{imported:?}");
        for secret in [&file, &at(&copy.to_string()).join("journal.db")] {
            let mode = fs::metadata(secret).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "others may read the seeds of jobs");
        }
        assert!(
            imported.out.contains("must not run any more"),
            "{imported:?}"
        );
    }
    let checked = check(&at("running"));
    assert_eq!(checked.code, Some(2), "{checked:?}");
    assert!(checked.err.contains("a coordinator runs on"), "{checked:?}");
    let health = |url: &str| {
        let health = fedavg(&format!("health --json --coordinator {url}"));
        serde_json::from_str::<Health>(&health.out)
            .unwrap()
            .coordinator
    };
    let identity = health(&url);
    running.kill();
    let killed = tree(&at("running"));
    private(&at("running"));
    assert!(killed.contains_key(Path::new("journal.db-wal")));
    assert!(!killed.keys().any(|name| name.starts_with("export-")));
    let checked = check(&at("running"));
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(killed == tree(&at("running")), "it changed something");

    let term = |folder: &str| report(&at(folder))["term"].as_u64().unwrap();
    // Neither gives a number of the other's, also if both start several times.
    assert!(term("7") > term("running") + 100);
    let checked = check(&at("7"));
    assert_eq!(checked.code, Some(0), "{checked:?}");
    // Worker one is not there: its clients go to another.
    let (_imported, url) = coordinator(&at("7"), "--heartbeat 0.2 --worker-expiry 1");
    assert_eq!(health(&url), identity);
    let _worker = worker(&url, "--name two");
    let (log, _) = Watch::at(&url, JobId(1)).finish();
    assert!(matches!(
        log.last().unwrap().event,
        JobEvent::Ended(Outcome::Completed)
    ));
    let mut watch = Watch::at(&url, JobId(2));
    watch.until(|entry| match entry.event {
        JobEvent::RoundCommitted { round, .. } if round.0 > committed + 3 => Some(()),
        _ => None,
    });
}

#[test]
fn nothing_is_replaced_unasked_and_nothing_damaged_is_imported() {
    let folder = fixture();
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    fs::write(at("file.tar"), "mine").unwrap();
    let refused = state([&"export", &folder.path(), &at("file.tar")]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("--force"), "{refused:?}");
    assert_eq!(fs::read(at("file.tar")).unwrap(), b"mine");
    let before = tree(folder.path());
    let forced = state([&"export", &"--force", &folder.path(), &at("file.tar")]);
    assert_eq!(forced.code, Some(0), "{forced:?}");
    let mut after = tree(folder.path());
    // SQLite's own, without which no process reads a journal that another one may write.
    after.retain(|name, _| !["journal.db-shm", "journal.db-wal"].contains(&name.to_str().unwrap()));
    assert!(before == after, "{:?}", after.keys());

    fs::create_dir(at("full")).unwrap();
    fs::write(at("full").join("file"), "mine").unwrap();
    let refused = state([&"import", &at("file.tar"), &at("full")]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("is not empty"), "{refused:?}");
    assert_eq!(tree(&at("full")).len(), 1);

    fs::create_dir(at("empty")).unwrap();
    let imported = state([&"import", &at("file.tar"), &at("empty")]);
    assert_eq!(imported.code, Some(0), "{imported:?}");
    assert_eq!(check(&at("empty")).code, Some(0));

    // A byte of a model, and an archive that is cut.
    let whole = fs::read(at("file.tar")).unwrap();
    let mut damaged = whole.clone();
    let model = fs::read(folder.path().join("models/job-2/v0/model.safetensors")).unwrap();
    let place = whole
        .windows(model.len())
        .position(|window| window == model)
        .unwrap();
    damaged[place + model.len() / 2] ^= 1;
    fs::write(at("damaged.tar"), damaged).unwrap();
    // In the midst of a file: where one ends, it is a whole archive of fewer files.
    fs::write(at("cut.tar"), &whole[..whole.len() / 2 + 700]).unwrap();
    fs::write(at("other.tar"), "no tar file at all").unwrap();
    for (file, code) in [("damaged.tar", 1), ("cut.tar", 2), ("other.tar", 2)] {
        let refused = state([&"import", &at(file), &at("new")]);
        assert_eq!(refused.code, Some(code), "{refused:?}");
        assert!(!at("new").exists(), "{file} left something");
    }
    let refused = state([&"import", &at("damaged.tar"), &at("new")]);
    assert!(refused.err.contains("job 2 can't go on"), "{refused:?}");
}

#[test]
fn a_file_in_the_state_folder_a_bad_place_or_a_port_in_use_is_a_wrong_argument() {
    let folder = fixture();
    let root = tempfile::tempdir().unwrap();
    let before = tree(folder.path());
    for place in ["copy.tar", "models/copy.tar"] {
        let refused = state([&"export", &folder.path(), &folder.path().join(place)]);
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.err.contains("outside of it"), "{refused:?}");
    }
    let nowhere = root.path().join("nowhere/copy.tar");
    let refused = state([&"export", &folder.path(), &nowhere]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("can't be written"), "{refused:?}");
    assert!(before == tree(folder.path()), "it changed something");
    let file = root.path().join("letter.txt");
    fs::write(&file, "Dear coordinator").unwrap();
    let refused = state([&"import", &file, &root.path().join("new")]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("state export DIR FILE"), "{refused:?}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let path = env!("CARGO_BIN_EXE_fedavg-coordinator");
    let mut command = binary(path, &format!("--bind {address}"));
    command.arg("--state-dir").arg(root.path().join("new"));
    let refused = Process::start(&mut command).finish();
    assert_eq!(refused.code, Some(2), "{refused:?}");
    let told = format!("port {} of 127.0.0.1 is in use", address.port());
    assert!(refused.err.contains(&told), "{refused:?}");
    assert!(
        !root.path().join("new").exists(),
        "a folder was made for nothing"
    );
}

/// `fedavg results` and `fedavg model download` of a job whose file has changed say so, and leave nothing.
fn damage_is_told(url: &str, job: u64, file: &Path) {
    let root = tempfile::tempdir().unwrap();
    let whole = fs::read(file).unwrap();
    damage(file);
    for command in ["results", "model download"] {
        let place = root.path().join("inner/outer");
        let asked = format!(
            "{command} {job} --output {} --coordinator {url}",
            place.display()
        );
        let refused = fedavg(&asked);
        assert_eq!(refused.code, Some(3), "{refused:?}");
        assert!(!refused.err.contains("on the way"), "{refused:?}");
        let told = format!(
            "models/job-{job}/v1/model.safetensors in the coordinator's state folder is damaged"
        );
        assert!(refused.err.contains(&told), "{refused:?}");
        assert!(refused.err.contains("state check"), "{refused:?}");
        if command == "results" {
            assert!(!root.path().join("inner").exists(), "a folder is left");
            fs::create_dir(root.path().join("inner")).unwrap();
        }
        assert!(!place.exists());
    }
    // It is looked at again: the same bytes are back.
    fs::write(file, whole).unwrap();
    let place = root.path().join("model");
    let downloaded = fedavg(&format!(
        "model download {job} --output {} --coordinator {url}",
        place.display()
    ));
    assert_eq!(downloaded.code, Some(0), "{downloaded:?}");
    assert!(fs::read(place).unwrap() == fs::read(file).unwrap());
}

#[test]
fn a_stored_model_that_is_damaged_is_not_blamed_on_the_way() {
    let folder = fixture();
    let (_coordinator, url) = coordinator(folder.path(), "");
    let file = folder.path().join("models/job-1/v1/model.safetensors");
    damage_is_told(&url, 1, &file);
    // One of several pieces: the damage is found when the last one is read.
    let root = tempfile::tempdir().unwrap();
    let (_coordinator, url) = coordinator(root.path(), "--rehearse 1000000");
    let _worker = worker(&url, "--rehearse 1000000");
    let job = "--model noop --dataset noop --clients 1 --rounds 1 --watch";
    let ended = fedavg(&format!("submit {job} --coordinator {url}"));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let file = root.path().join("models/job-1/v1/model.safetensors");
    damage_is_told(&url, 1, &file);
}

#[test]
fn a_report_that_can_not_be_read_does_not_count_as_kept() {
    let folder = fixture();
    damage(&file_like(folder.path(), "spool/job-2"));
    let (mut coordinator, _) = coordinator(folder.path(), "--max-running 1");
    let told = coordinator.err.until("the job goes on");
    assert!(
        told.contains("1 report, and 1 that can't be read"),
        "{told}"
    );
}
