//! `state export` and `state import` that abort before and after each durable step, at every visit of it (feature `testing`).
//!
//! Whenever an export is killed, the state folder is unharmed, the exported file is whole or not there, and the next export is like
//! the first. Whenever an import is killed, the exported file is unharmed, the new folder has a whole state or none, and an import
//! into another folder works; one into the same folder works or says plainly that it is not empty.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::{
    binaries::binary,
    process::{Finished, Process},
};

/// `fedavg-coordinator state` with these arguments, which aborts there.
fn state(arguments: &[&Path], abort: Option<&str>, steps: Option<&Path>) -> Finished {
    let mut command = binary(env!("CARGO_BIN_EXE_fedavg-coordinator"), "state");
    command.args(arguments);
    if let Some(abort) = abort {
        command.env("FEDAVG_ABORT_AT", abort);
    }
    if let Some(steps) = steps {
        command.env("FEDAVG_STEPS_FILE", steps);
    }
    Process::start(&mut command).finish()
}

fn succeeds(arguments: &[&Path]) {
    let finished = state(arguments, None, None);
    assert_eq!(finished.code, Some(0), "{arguments:?}: {finished:?}");
}

/// The files below a folder, but for SQLite's own beside the database, and empty folders.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().to_path_buf();
            if path.is_dir() {
                folders.push(path);
            } else if !["journal.db-shm", "journal.db-wal"].contains(&name.to_str().unwrap()) {
                found.insert(name, fs::read(path).unwrap());
            }
        }
    }
    found
}

/// A copy of the state folder that is kept for tests.
fn state_folder(place: &Path) {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/state-1");
    for (name, bytes) in files(&fixture) {
        let path = place.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// Every point of a run that visits these sites, and the sites.
fn points(steps: &Path) -> (Vec<String>, Vec<String>) {
    let mut visits: BTreeMap<String, usize> = BTreeMap::new();
    for site in fs::read_to_string(steps).unwrap().lines() {
        *visits.entry(site.to_string()).or_default() += 1;
    }
    let mut points = Vec::new();
    for (site, count) in &visits {
        for number in 1..=*count {
            for side in ["before", "after"] {
                points.push(format!("{site}:{side}:{number}"));
            }
        }
    }
    (points, visits.into_keys().collect())
}

fn aborted(arguments: &[&Path], point: &str) {
    let finished = state(arguments, Some(point), None);
    assert_eq!(finished.code, None, "{point} was not reached: {finished:?}");
}

const EXPORT: &str = "export";
const IMPORT: &str = "import";
const CHECK: &str = "check";

#[test]
fn an_export_that_is_killed_anywhere_harms_nothing() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let (folder, steps) = (at("state"), at("steps"));
    state_folder(&folder);
    let first = at("first.tar");
    let arguments = [Path::new(EXPORT), &folder, &first];
    let exported = state(&arguments, None, Some(&steps));
    assert_eq!(exported.code, Some(0), "{exported:?}");
    let (points, sites) = points(&steps);
    assert_eq!(sites, ["export.remove", "output.rename", "output.sync"]);
    let whole = files(&folder);
    for point in &points {
        let file = at("second.tar");
        aborted(&[Path::new(EXPORT), &folder, &file], point);
        if file.exists() {
            succeeds(&[Path::new(IMPORT), &file, &at("of-second")]);
            fs::remove_dir_all(at("of-second")).unwrap();
            fs::remove_file(&file).unwrap();
        }
        let third = at("third.tar");
        succeeds(&[Path::new(EXPORT), &folder, &third]);
        // What the killed one left in the folder is gone, too.
        assert!(
            files(&folder) == whole,
            "{point}: {:?}",
            files(&folder).keys()
        );
        succeeds(&[Path::new(CHECK), &folder]);
        succeeds(&[Path::new(IMPORT), &third, &at("of-third")]);
        fs::remove_dir_all(at("of-third")).unwrap();
        fs::remove_file(&third).unwrap();
    }
    println!("{} exports were aborted", points.len());
}

#[test]
fn an_import_that_is_killed_anywhere_harms_nothing() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let (folder, file, steps) = (at("state"), at("file.tar"), at("steps"));
    state_folder(&folder);
    succeeds(&[Path::new(EXPORT), &folder, &file]);
    let bytes = fs::read(&file).unwrap();
    let imported = state(
        &[Path::new(IMPORT), &file, &at("first")],
        None,
        Some(&steps),
    );
    assert_eq!(imported.code, Some(0), "{imported:?}");
    let (mut all, sites) = points(&steps);
    for site in [
        "import.file.sync",
        "import.tree.sync",
        "import.rename",
        "import.folder.sync",
    ] {
        assert!(
            sites.iter().any(|found| found == site),
            "{site} in {sites:?}"
        );
    }
    // An import that fails tidies up, and may be killed then.
    let damaged = at("damaged.tar");
    let mut changed = bytes.clone();
    let model = fs::read(folder.join("models/job-2/v0/model.safetensors")).unwrap();
    let place = bytes.windows(model.len()).position(|part| part == model);
    changed[place.unwrap() + model.len() / 2] ^= 1;
    fs::write(&damaged, changed).unwrap();
    fs::remove_file(&steps).unwrap();
    let refused = state(
        &[Path::new(IMPORT), &damaged, &at("none")],
        None,
        Some(&steps),
    );
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let (tidying, _) = points(&steps);
    let tidying = tidying
        .into_iter()
        .filter(|point| point.starts_with("import.remove"));
    let tidying: Vec<_> = tidying.collect();
    assert!(tidying.len() > 4, "{tidying:?}");
    all.extend(tidying.iter().cloned());
    for point in &all {
        let is_tidying = tidying.contains(point);
        let (from, to) = (if is_tidying { &damaged } else { &file }, at("second"));
        aborted(&[Path::new(IMPORT), from, &to], point);
        assert!(
            fs::read(&file).unwrap() == bytes,
            "{point}: the exported file has changed"
        );
        // A whole state or none.
        let has_state = to.join("journal.db").exists();
        if has_state {
            succeeds(&[Path::new(CHECK), &to]);
        }
        let again = state(&[Path::new(IMPORT), &file, &to], None, None);
        if again.code == Some(0) {
            succeeds(&[Path::new(CHECK), &to]);
        } else {
            assert_eq!(again.code, Some(2), "{point}: {again:?}");
            assert!(again.err.contains("is not empty"), "{point}: {again:?}");
            assert!(again.err.contains("state check"), "{point}: {again:?}");
        }
        succeeds(&[Path::new(IMPORT), &file, &at("third")]);
        succeeds(&[Path::new(CHECK), &at("third")]);
        fs::remove_dir_all(at("third")).unwrap();
        if to.exists() {
            fs::remove_dir_all(&to).unwrap();
        }
    }
    println!("{} imports were aborted", all.len());
}
