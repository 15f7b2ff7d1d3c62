//! A journal that is damaged or gone: a plain error that says what to do, and never a start without the jobs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    places::{Places, on_a_runtime},
    recovery::kill,
    *,
};

/// The jobs of a coordinator on this folder, or why there is none.
fn jobs(root: &Path) -> Result<Vec<JobId>, String> {
    let places = Places::open(root)?;
    on_a_runtime(async {
        let started = places.start_with(CoordinatorConfig::default()).await;
        let lab = started.map_err(|error| error.to_string())?;
        let jobs = lab.coordinator.jobs(&HERE).await.unwrap();
        kill(lab).await;
        Ok(jobs.iter().map(|job| job.job).collect())
    })
}

/// A folder with some jobs. `is_killed`: as `kill -9` leaves it, with all in SQLite's log; otherwise closed in order.
fn folder(is_killed: bool) -> tempfile::TempDir {
    let (root, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    on_a_runtime(async {
        let places = Places::open(root.path()).unwrap();
        let lab = places.start().await;
        for _ in 0..4 {
            lab.submit(|_| ()).await;
        }
        kill(lab).await;
        if is_killed {
            copy_tree(root.path(), copy.path());
        }
    });
    if is_killed { copy } else { root }
}

fn copy_tree(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let place = to.join(path.file_name().unwrap());
        if path.is_dir() {
            fs::create_dir(&place).unwrap();
            copy_tree(&path, &place);
        } else {
            fs::copy(&path, &place).unwrap();
        }
    }
}

fn file(root: &Path, name: &str) -> PathBuf {
    root.join("state").join(name)
}

/// The start is refused, with what to do.
fn refused(root: &Path, what: &str) {
    let before = fs::read_dir(file(root, "models")).unwrap().count();
    let error = jobs(root).expect_err(what);
    for part in ["journal.db", "state import", "move this folder away"] {
        assert!(error.contains(part), "{what}: {error}");
    }
    // What is there stays: somebody may still want it.
    let after = fs::read_dir(file(root, "models")).unwrap().count();
    assert_eq!(before, after, "{what}");
}

#[test]
fn a_folder_whose_journal_is_missing_or_empty_is_refused() {
    for is_killed in [false, true] {
        let root = folder(is_killed);
        let journal = file(root.path(), "journal.db");
        let bytes = fs::read(&journal).unwrap();
        fs::write(&journal, b"").unwrap();
        refused(root.path(), "empty");
        fs::remove_file(&journal).unwrap();
        refused(root.path(), "missing");
        assert!(!file(root.path(), "models-of-0.1").exists());
        fs::write(&journal, bytes).unwrap();
        assert_eq!(jobs(root.path()).unwrap().len(), 4);
    }
}

#[test]
fn a_damaged_database_is_refused() {
    let root = folder(false);
    let journal = file(root.path(), "journal.db");
    let whole = fs::read(&journal).unwrap();
    let page = 4096;
    assert_eq!(whole.len() % page, 0);
    // SQLite's header, and its number of pages.
    for place in [0, 5] {
        let mut damaged = whole.clone();
        damaged[place] ^= 0x40;
        fs::write(&journal, damaged).unwrap();
        refused(root.path(), "the header");
    }
    // The head of each page: its kind, and how many cells it has.
    for start in (page..whole.len()).step_by(page) {
        let mut damaged = whole.clone();
        damaged[start..start + 8].fill(0xff);
        fs::write(&journal, damaged).unwrap();
        refused(root.path(), "a page");
    }
    for pages in 1..whole.len() / page {
        fs::write(&journal, &whole[..pages * page]).unwrap();
        refused(root.path(), "cut off");
    }
    fs::write(&journal, &whole).unwrap();
    assert_eq!(jobs(root.path()).unwrap().len(), 4);
}

#[test]
fn damage_in_the_midst_of_sqlites_log_is_refused_and_a_torn_tail_is_not() {
    let root = folder(true);
    let log = file(root.path(), "journal.db-wal");
    let whole = fs::read(&log).unwrap();
    let frame = 24 + 4096;
    let frames = (whole.len() - 32) / frame;
    assert!(frames > 10, "{frames}");
    // The header, and each frame of the first half.
    let mut places = vec![20];
    places.extend((0..frames / 2).map(|index| 32 + index * frame + 100));
    for place in places {
        let mut damaged = whole.clone();
        damaged[place] ^= 1;
        fs::write(&log, damaged).unwrap();
        refused(root.path(), "the log");
    }
    // Half of the last frame, and one that the disk did not get: nobody was told of it.
    let mut empty = whole.clone();
    empty[whole.len() - frame..].fill(0);
    for torn in [&whole[..whole.len() - frame / 2], &empty] {
        let (copy, log) = (tempfile::tempdir().unwrap(), "journal.db-wal");
        copy_tree(root.path(), copy.path());
        fs::write(file(copy.path(), log), torn).unwrap();
        let found = jobs(copy.path()).unwrap();
        assert!(found.len() >= 3, "{found:?}");
    }
}
