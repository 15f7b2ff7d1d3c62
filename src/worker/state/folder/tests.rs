use super::*;
use crate::protocol::{Registered, Registration};

fn id(text: &str) -> CoordinatorId {
    CoordinatorId(text.to_string())
}

fn open(base: &Path, coordinator: &str, name: &str) -> Result<StateFolder, StateError> {
    StateFolder::open(base, &id(coordinator), name, false)
}

#[test]
fn each_coordinator_and_each_name_has_a_folder_and_a_live_namesake_gets_the_next_one() {
    let base = tempfile::tempdir().unwrap();
    let first = open(base.path(), "c1", "lab").unwrap();
    assert_eq!(first.path(), base.path().join("c1/worker-lab"));
    let second = open(base.path(), "c1", "lab").unwrap();
    assert_eq!(second.name(), "lab-2");
    assert_eq!(open(base.path(), "c1", "lab").unwrap().name(), "lab-3");
    assert_eq!(open(base.path(), "c2", "lab").unwrap().name(), "lab");
    drop(first);
    assert_eq!(open(base.path(), "c1", "lab").unwrap().name(), "lab");
}

#[test]
fn a_worker_with_data_of_its_own_gets_no_other_name() {
    let base = tempfile::tempdir().unwrap();
    let _first = open(base.path(), "c1", "lab").unwrap();
    let second = StateFolder::open(base.path(), &id("c1"), "lab", true);
    let message = second.unwrap_err().to_string();
    assert!(message.contains("choose another name"), "{message}");
}

#[test]
fn a_folder_of_a_later_version_is_refused_with_both_versions() {
    let base = tempfile::tempdir().unwrap();
    let folder = open(base.path(), "c1", "lab").unwrap();
    let version = folder.path().join(VERSION_FILE);
    drop(folder);
    for (text, is_taken) in [("1\n", true), ("2\n", false), ("later", false), ("", false)] {
        fs::write(&version, text).unwrap();
        match open(base.path(), "c1", "lab") {
            Ok(_) => assert!(is_taken, "{text:?}"),
            Err(error) => {
                assert!(
                    !is_taken && matches!(error, StateError::Newer { .. }),
                    "{error}"
                );
                assert!(error.to_string().contains("reads version 1"), "{error}");
            }
        }
    }
}

#[test]
fn a_registration_reads_back_for_its_user_alone_and_a_broken_one_counts_for_nothing() {
    let base = tempfile::tempdir().unwrap();
    let folder = open(base.path(), "c1", "lab").unwrap();
    assert!(folder.registration().is_none());
    let registration = Registration::new("lab");
    let registered: Registered = serde_json::from_str(
        r#"{"worker":7,"coordinator":"c1","token":"secret","heartbeat_ms":1,"poll_ms":2}"#,
    )
    .unwrap();
    folder.keep_registration(&registration, &registered);
    let read = folder.registration().unwrap();
    assert_eq!(read, (registration, registered));
    let file = folder.path().join("registration.json");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    fs::write(&file, "{\"registration\":").unwrap();
    assert!(folder.registration().is_none());
    folder.forget_registration();
    assert!(!file.exists());
}

#[test]
fn jobs_that_do_not_run_are_removed_and_other_files_stay() {
    let base = tempfile::tempdir().unwrap();
    let folder = open(base.path(), "c1", "lab").unwrap();
    let jobs = folder.path().join(JOBS);
    for name in ["job-1", "job-2", "notes"] {
        make_folder(&jobs.join(name)).unwrap();
    }
    drop(folder);
    let folder = open(base.path(), "c1", "lab").unwrap();
    assert!(folder.has_others(&[JobId(2)]));
    assert_eq!(folder.remove_others(&[JobId(2), JobId(3)]), 1);
    assert!(!folder.has_others(&[JobId(2)]));
    let left = |name: &str| jobs.join(name).exists();
    assert!(!left("job-1") && left("job-2") && left("notes"));
}
