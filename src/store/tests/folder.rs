use std::fs;

use super::*;
use crate::store::{FileModels, ModelStore, StoreError};

#[test]
fn a_folder_has_one_coordinator_at_a_time() {
    let disk = Disk::new();
    let refused = DataFolder::open(disk.path()).err();
    let path = disk.path().display().to_string();
    assert_eq!(refused, Some(StoreError::InUse { path }));
    // A store over it holds it as well.
    let Disk { folder, root } = disk;
    let spool = FileSpool::new(folder, FileSpoolConfig::default());
    assert!(DataFolder::open(root.path()).is_err());
    drop(spool);
    assert!(DataFolder::open(root.path()).is_ok());
}

#[test]
fn what_an_earlier_coordinator_left_is_removed_and_nothing_else() {
    let Disk { folder, root } = Disk::new();
    let layout = layout(1000);
    let spool = FileSpool::new(folder.clone(), FileSpoolConfig::default());
    upload(&spool, 0, &delta(&layout, Encoding::F32, 0)).unwrap();
    let writer = spool
        .begin(key(1), &report_form(&layout, Encoding::F32))
        .unwrap();
    let models = FileModels::new(folder.clone());
    let model = models
        .begin(JOB, ModelVersion(0), &form(&layout, Encoding::F16))
        .unwrap();
    // As after kill -9: nobody tidies up.
    std::mem::forget((writer, model));
    drop((spool, models));
    fs::write(root.path().join("spool/notes"), "mine").unwrap();
    fs::create_dir(root.path().join("models/job-of-mine")).unwrap();
    let left = below(root.path());
    assert!(left.contains(&"spool/job-1/round-1/client-0-100.report".to_string()));
    assert!(left.contains(&"spool/job-1/round-1/client-1-101.part".to_string()));
    assert!(left.contains(&"models/job-1/v0.0.next/sent.safetensors".to_string()));
    // The lock is an earlier process's, whose handles are gone.
    let elsewhere = tempfile::tempdir().unwrap();
    for part in ["spool", "models"] {
        fs::rename(root.path().join(part), elsewhere.path().join(part)).unwrap();
    }
    let folder = DataFolder::open(elsewhere.path()).unwrap();
    let spool = FileSpool::new(folder.clone(), FileSpoolConfig::default());
    let models = FileModels::new(folder);
    // Nothing goes before somebody has said what is needed.
    assert!(below(elsewhere.path()).len() > 10);
    spool.retain(&|_| false, &|_| false).unwrap();
    models.retain(&|_, _| false).unwrap();
    assert_eq!(
        below(elsewhere.path()),
        [
            "lock",
            "logs",
            "models",
            "models/job-of-mine",
            "spool",
            "spool/notes"
        ]
    );
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error_that_names_it() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    fs::write(&file, "").unwrap();
    let error = DataFolder::open(file.join("data")).unwrap_err();
    assert!(error.to_string().contains("file/data"), "{error}");
}

#[test]
fn models_of_a_folder_without_a_journal_are_put_aside_once() {
    let disk = Disk::new();
    assert_eq!(disk.folder.put_aside_unjournaled(), Ok(None));
    fs::create_dir_all(disk.path().join("models/job-1/v4")).unwrap();
    let aside = disk.path().join("models-of-0.1");
    assert_eq!(disk.folder.put_aside_unjournaled(), Ok(Some(aside.clone())));
    assert!(aside.join("job-1/v4").is_dir());
    // From here on the folder has a journal.
    fs::write(disk.path().join("journal.db"), "").unwrap();
    fs::create_dir_all(disk.path().join("models/job-1/v0")).unwrap();
    assert_eq!(disk.folder.put_aside_unjournaled(), Ok(None));
    assert!(disk.path().join("models/job-1/v0").is_dir());
}
