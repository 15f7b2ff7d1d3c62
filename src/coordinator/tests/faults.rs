//! Each step on the disk fails once: a plain error or a pause, and then the same bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    thread,
};

use super::{
    places::{Places, on_a_runtime},
    recovery::{finish, kill},
    *,
};
use crate::disk::{
    Operation, Site,
    testing::{EIO, EROFS, Fault, watch},
};

const ROUNDS: u32 = 2;

/// A start that is tried again after an error, which names the folder.
fn opened(root: &Path, fault: &Fault) -> Places {
    match Places::open(root) {
        Ok(places) => places,
        Err(error) => {
            assert!(fault.has_failed(), "{error}");
            assert!(error.contains(&root.display().to_string()), "{error}");
            Places::open(root).unwrap()
        }
    }
}

/// Does it again after an error of the disk, which is said to be one.
macro_rules! again {
    ($fault:expr, $try:expr) => {
        loop {
            match $try {
                Ok(done) => break done,
                Err(error) => {
                    let refused: OperatorError = error.into();
                    let OperatorError::Refused(refusal) = &refused else {
                        panic!("{refused:?}");
                    };
                    assert_eq!(refusal.kind, RefusalKind::Storage, "{refusal:?}");
                    assert!($fault.has_failed(), "{refusal:?}");
                }
            }
        }
    };
}

/// A job of two rounds with a restart in the midst of the first, and its deletion. Returns the model, and the job that stays.
async fn run(root: &Path, fault: &Fault) -> (Vec<f32>, JobId) {
    let places = opened(root, fault);
    let mut lab = places.start().await;
    let mut workers = Vec::new();
    for name in ["a", "b"] {
        workers.push(again!(fault, lab.register(lab.registration(name)).await));
    }
    let spec = || {
        let mut spec = JobSpec {
            rounds: ROUNDS,
            clients: Some(2),
            evaluation: EvaluationMode::Never,
            ..lab.trainers.job()
        };
        spec.limits.min_updates = 2;
        spec
    };
    let spec = spec();
    let submitted = again!(
        fault,
        lab.coordinator.submit(&HERE, spec.clone(), None).await
    );
    let job = submitted.job;
    for round in 1..=ROUNDS {
        for (index, worker) in workers.iter().enumerate() {
            let task = lab.poll(worker, vec![]).await;
            assert_eq!(
                task.round,
                RoundId(u64::from(round)),
                "a round was abandoned"
            );
            loop {
                let (status, code) = lab.report(worker, &task).await;
                if status == 204 {
                    break;
                }
                assert_eq!((status, &*code), (507, "storage"));
                assert!(fault.has_failed());
            }
            if (round, index) == (1, 0) {
                kill(lab).await;
                lab = places.start().await;
            }
        }
    }
    let (summary, rounds, model) = lab.finished(job).await;
    assert_eq!(summary.phase, "completed", "{summary:?}");
    assert!(rounds.iter().all(|round| round.abandoned.is_none()));
    let model = model.values().to_vec();
    // One that stays, so that the models of the deleted one are not all.
    let workers: Vec<_> = workers.iter().collect();
    let other = again!(
        fault,
        lab.coordinator.submit(&HERE, spec.clone(), None).await
    )
    .job;
    assert_eq!(finish(&lab, &workers, other).await, model);
    again!(fault, lab.coordinator.delete(&HERE, job).await);
    kill(lab).await;
    // What could not be removed goes with the next start.
    let lab = places.start().await;
    assert_eq!(lab.finished(other).await.2.values(), model);
    kill(lab).await;
    (model, other)
}

/// Of reports nothing is left, and of models the last of this job.
fn leaves_nothing(root: &Path, job: JobId) {
    let state = root.join("state");
    assert_eq!(fs::read_dir(state.join("spool")).unwrap().count(), 0);
    let jobs: Vec<_> = fs::read_dir(state.join("models"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    let folder = format!("job-{job}");
    assert_eq!(jobs, [folder.as_str()]);
    let versions = fs::read_dir(state.join("models").join(folder)).unwrap();
    let versions = versions.count();
    assert_eq!(versions, 1);
}

/// Removals at a start. What there is to remove depends on how far the process before had come.
const BY_CHANCE: [Site; 5] = [
    Site::OldReportRemove,
    Site::OldReportRoundRemove,
    Site::OldReportJobRemove,
    Site::OldVersionRemove,
    Site::OldModelJobRemove,
];

/// A run in which the nth step at a site fails.
fn run_with(site: Option<Site>, nth: usize, error: i32) -> (Vec<f32>, BTreeMap<Site, usize>) {
    let root = tempfile::tempdir().unwrap();
    let fault = Fault::new(site, nth, error);
    let _watch = watch(root.path(), fault.clone());
    let (model, job) = on_a_runtime(run(root.path(), &fault));
    leaves_nothing(root.path(), job);
    let is_certain = site.is_some_and(|site| nth == 1 && !BY_CHANCE.contains(&site));
    assert!(
        !is_certain || fault.has_failed(),
        "{site:?} was not visited"
    );
    (model, fault.visits())
}

#[test]
fn any_step_fails_once_and_the_job_ends_in_the_same_bytes() {
    let (expected, visits) = run_with(None, 0, EIO);
    let operations: Vec<_> = visits.keys().map(|site| site.operation()).collect();
    for operation in [
        Operation::Write,
        Operation::SyncFile,
        Operation::SyncFolder,
        Operation::Rename,
        Operation::Remove,
        Operation::Commit,
    ] {
        assert!(operations.contains(&operation), "{operation:?}");
    }
    // A model that can't be written is tried again after a pause: side by side, these are one pause.
    thread::scope(|scope| {
        for (site, count) in &visits {
            let expected = &expected;
            // The first one, and one in the midst of the job.
            for nth in BTreeSet::from([1, count.div_ceil(2)]) {
                scope.spawn(move || {
                    let (model, _) = run_with(Some(*site), nth, EIO);
                    assert_eq!(&model, expected, "{site:?}");
                });
            }
        }
    });
}

#[test]
fn a_folder_that_can_only_be_read_is_an_error_that_names_it() {
    let root = tempfile::tempdir().unwrap();
    let fault = Fault::new(Some(Site::FolderPartsSync), 1, EROFS);
    let _watch = watch(root.path(), fault.clone());
    let Err(error) = Places::open(root.path()) else {
        panic!("it opened");
    };
    let path = root.path().join("state").display().to_string();
    assert!(
        error.contains(&path) && error.contains("Read-only"),
        "{error}"
    );
    assert!(fault.has_failed());
}
