//! Two versions side by side: an upgrade goes machine by machine, and a job that runs goes on through it.
//!
//! `FEDAVG_OTHER_VERSION` names a folder with the programs of another version (`just other-version COMMIT` builds them and
//! runs this). Without it the other version is this one, so that the steps of an upgrade are tested at least.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use fedavg::{ids::JobId, protocol::JobSummary, round::JobEvent};
use tempfile::TempDir;

use super::{
    deployment::{Watch, binary, fedavg},
    process::Process,
    reproducible::model,
};

/// `top_k` keeps residuals in the workers: a client that lost them would end in another model.
const JOB: &str =
    "--clients 4 --goal 4 --min-updates 4 --local-epochs 4 --lr 0.1 --seed 7 --encoding top_k:0.05";

/// Programs of one version.
struct Version {
    coordinator: PathBuf,
    worker: PathBuf,
    /// The flag of a coordinator that asks for no token; an earlier version asked for none unless it was told to.
    open: &'static str,
}

impl Version {
    fn this() -> Self {
        Self {
            coordinator: env!("CARGO_BIN_EXE_fedavg-coordinator").into(),
            worker: env!("CARGO_BIN_EXE_fedavg-worker").into(),
            open: "--open ",
        }
    }

    fn other() -> Self {
        let Some(folder) = env::var_os("FEDAVG_OTHER_VERSION").map(PathBuf::from) else {
            return Self::this();
        };
        Self {
            coordinator: folder.join("fedavg-coordinator"),
            worker: folder.join("fedavg-worker"),
            open: "",
        }
    }

    fn coordinator(&self, site: &Site, bind: &str) -> (Process, String) {
        let mut process = Process::start(
            site.program(&self.coordinator, &format!("{}--bind {bind}", self.open))
                .arg("--state-dir")
                .arg(site.coordinator()),
        );
        let line = process.out.until("listening on ");
        let url = line.trim_start_matches("listening on ").to_string();
        (process, url)
    }

    fn worker(&self, site: &Site, url: &str) -> Process {
        let arguments = format!("--coordinator {url} --name lab --slots 2");
        Process::start(&mut site.program(&self.worker, &arguments))
    }
}

/// The folders of a test.
struct Site(TempDir);

impl Site {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn coordinator(&self) -> PathBuf {
        self.0.path().join("coordinator")
    }

    /// Version 0.1 of the worker knows no `--state-dir`: all versions find their folders by the environment.
    fn program(&self, path: &Path, arguments: &str) -> Command {
        let mut command = binary(path.to_str().unwrap(), arguments);
        command.env("HOME", self.0.path());
        command.env("XDG_DATA_HOME", self.0.path());
        command
    }

    /// The model that the job ended in.
    fn result(&self, url: &str, job: JobId) -> Vec<u8> {
        let place = self.0.path().join("results");
        let asked = fedavg(&format!(
            "results {job} --coordinator {url} --output {}",
            place.display()
        ));
        assert_eq!(asked.code, Some(0), "{asked:?}");
        model(&place)
    }
}

fn submit(url: &str, rounds: u32) -> JobId {
    let answer = fedavg(&format!(
        "submit {JOB} --rounds {rounds} --coordinator {url} --json"
    ));
    assert_eq!(answer.code, Some(0), "{answer:?}");
    serde_json::from_str::<JobSummary>(&answer.out).unwrap().job
}

/// What the job ends in if nothing else happens.
fn undisturbed(rounds: u32) -> Vec<u8> {
    let folder = TempDir::new().unwrap();
    let simulated = fedavg(&format!(
        "simulate {JOB} --rounds {rounds} --output {}",
        folder.path().join("run").display()
    ));
    assert_eq!(simulated.code, Some(0), "{simulated:?}");
    model(&folder.path().join("run"))
}

/// The next round that is committed, after this many others.
fn committed(watch: &mut Watch, after: u32) {
    for _ in 0..=after {
        watch.until(|entry| match entry.event {
            JobEvent::RoundCommitted { .. } => Some(()),
            _ => None,
        });
    }
}

#[test]
fn a_worker_and_a_coordinator_of_different_versions_train_the_same_model() {
    let expected = undisturbed(5);
    for (coordinator, worker) in [
        (Version::this(), Version::other()),
        (Version::other(), Version::this()),
    ] {
        let site = Site::new();
        let (_coordinator, url) = coordinator.coordinator(&site, "127.0.0.1:0");
        let _worker = worker.worker(&site, &url);
        let job = submit(&url, 5);
        let (log, code) = Watch::at(&url, job).finish();
        assert_eq!(code, Some(0), "{log:#?}");
        assert!(site.result(&url, job) == expected);
    }
}

#[test]
fn an_upgrade_of_the_coordinator_and_then_of_the_worker_leaves_the_model_as_it_is() {
    const ROUNDS: u32 = 40;
    let site = Site::new();
    let (coordinator, url) = Version::other().coordinator(&site, "127.0.0.1:0");
    let worker = Version::other().worker(&site, &url);
    let job = submit(&url, ROUNDS);
    committed(&mut Watch::at(&url, job), 2);
    coordinator.signal("-TERM");
    let ended = coordinator.finish();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    if !site.coordinator().join("journal.db").exists() {
        // Jobs of version 0.1 end with their coordinator.
        println!("the other version keeps no journal: its jobs can't go on");
        return;
    }

    let address = url.trim_start_matches("http://");
    let (_coordinator, _) = Version::this().coordinator(&site, address);
    let mut watch = Watch::at(&url, job);
    committed(&mut watch, 5);
    // As a service manager does it.
    worker.signal("-TERM");
    let ended = worker.finish();
    assert!(
        ended.err.contains("ended with states of clients"),
        "{ended:?}"
    );
    let mut worker = Version::this().worker(&site, &url);
    worker.err.until("goes on as the worker that it was");
    let (log, code) = watch.finish();
    assert_eq!(code, Some(0), "{log:#?}");
    assert!(site.result(&url, job) == undisturbed(ROUNDS));
}
