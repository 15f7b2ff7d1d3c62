//! The observation itself.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{Observer, Scenario, Step, power::sync_sites, watch};
use crate::disk::{Operation, Site, remove_file, rename, sync_folder, write_at};

/// Fails renames, leaves removals out, and counts what was done.
#[derive(Default)]
struct Picky(AtomicUsize);

impl Observer for Picky {
    fn step(&self, step: &Step, act: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        match step.site.operation() {
            Operation::Rename => return Err(io::ErrorKind::StorageFull.into()),
            Operation::Remove => return Ok(()),
            _ => {}
        }
        self.0.fetch_add(1, Ordering::Relaxed);
        act()
    }
}

#[test]
fn names_of_sites_are_unique() {
    let names: BTreeSet<_> = Site::ALL.iter().map(|site| site.name()).collect();
    assert_eq!(names.len(), Site::ALL.len());
}

/// Syncs that no promise needs, each with the reason.
const NOT_PROMISED: &[(Site, &str)] = &[(
    Site::ReportPartSync,
    "the sync at the report's end has all of it: this one only spreads the work",
)];

#[test]
fn each_sync_is_needed_by_a_scenario() {
    let mut needed: BTreeSet<Site> = NOT_PROMISED.iter().map(|(site, _)| *site).collect();
    for scenario in Scenario::ALL {
        needed.extend(scenario.needs());
    }
    assert_eq!(needed, sync_sites());
}

#[test]
fn steps_below_a_watched_folder_are_done_left_out_or_fail_and_others_are_done() {
    let (watched, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let picky = Arc::new(Picky::default());
    let watch = watch(watched.path(), picky.clone());
    for folder in [watched.path(), other.path()] {
        let (path, to) = (folder.join("a"), folder.join("b"));
        let file = File::create(&path).unwrap();
        write_at(Site::ReportWrite, &file, &path, b"text", 0).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"text");
        sync_folder(Site::ReportRoundSync, folder).unwrap();
        let is_watched = folder == watched.path();
        let renamed = rename(Site::ReportRename, &path, &to);
        assert_eq!(renamed.is_err(), is_watched);
        let there = if is_watched { path } else { to };
        remove_file(Site::ReportRemove, &there).unwrap();
        assert_eq!(there.exists(), is_watched);
    }
    assert_eq!(picky.0.load(Ordering::Relaxed), 2);
    let missing = watched.path().join("none");
    let error = sync_folder(Site::ReportRoundSync, &missing).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    drop(watch);
    remove_file(Site::ReportRemove, &watched.path().join("a")).unwrap();
    assert!(!watched.path().join("a").exists());
}
