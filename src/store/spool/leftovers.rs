//! What an earlier process left in the spool, by the names of its files.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{notes::read_notes, partials::Held, resting::Resting, stored::Shared};
use crate::{
    disk::{self, Site},
    ids::{ClientId, JobId, RequestId, RoundId},
    report::{PartialKey, SpoolKey},
    store::{
        StoreError,
        folder::{failed, job_folders, names_in},
    },
};

/// What a file of the spool has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    /// A whole report.
    Report,
    /// The bytes of an upload.
    Part,
    /// What is noted of an upload, so that it can go on.
    Notes,
}

/// The report of a file's name, and what the file has; none if the name is not of this crate's.
pub(super) fn key_of(job: JobId, round: RoundId, name: &str) -> Option<(SpoolKey, FileKind)> {
    let (name, ending) = name.strip_prefix("client-")?.split_once('.')?;
    let (client, upload) = name.split_once('-')?;
    let key = SpoolKey {
        job,
        round,
        client: ClientId(client.parse().ok()?),
        upload: RequestId(upload.parse().ok()?),
    };
    match ending {
        "report" => Some((key, FileKind::Report)),
        "part" => Some((key, FileKind::Part)),
        "resume" => Some((key, FileKind::Notes)),
        _ => None,
    }
}

/// Removes the files of all reports but those that `keeps` names, and of all broken uploads but those that `resumes` names, and
/// the folders that are empty then. The uploads can go on afterwards.
///
/// # Errors
///
/// [`StoreError::Io`].
pub(super) fn remove_leftovers(
    spool: &Shared,
    keeps: &dyn Fn(SpoolKey) -> bool,
    resumes: &dyn Fn(PartialKey) -> bool,
) -> Result<(), StoreError> {
    for (job, job_path) in job_folders(&spool.place.rounds.folder().spool())? {
        for round_name in names_in(&job_path)? {
            let round = round_name.strip_prefix("round-");
            let Some(round) = round.and_then(|round| round.parse().ok()) else {
                continue;
            };
            let round_path = job_path.join(&round_name);
            let mut files = Vec::new();
            for name in names_in(&round_path)? {
                if let Some((key, kind)) = key_of(job, round, &name) {
                    files.push((key, kind, round_path.join(&name)));
                }
            }
            let resumed = parts_to_resume(&files, resumes);
            for (key, kind, path) in &files {
                let stays = match kind {
                    FileKind::Report => keeps(*key),
                    FileKind::Part | FileKind::Notes => resumed.contains_key(key),
                };
                if !stays {
                    remove_leftover(path)?;
                }
            }
            for (partial, resting) in resumed.into_values() {
                spool.partials.insert(partial, Held::Resting(resting));
            }
            // Both stay if something is in them.
            let _ = disk::remove_folder(Site::OldReportRoundRemove, &round_path);
        }
        let _ = disk::remove_folder(Site::OldReportJobRemove, &job_path);
    }
    Ok(())
}

fn remove_leftover(path: &Path) -> Result<(), StoreError> {
    disk::remove_file(Site::OldReportRemove, path).map_err(|error| failed(path, error))
}

/// The uploads of a round that may go on, by the report that each would have been: of one sender, the last.
fn parts_to_resume(
    files: &[(SpoolKey, FileKind, PathBuf)],
    resumes: &dyn Fn(PartialKey) -> bool,
) -> BTreeMap<SpoolKey, (PartialKey, Resting)> {
    let mut parts = BTreeMap::new();
    let mut last = BTreeMap::new();
    for (key, kind, path) in files {
        match kind {
            FileKind::Part => {
                parts.insert(*key, path.clone());
            }
            FileKind::Notes => {
                if let Some(partial) = partial_of(*key, path).filter(|partial| resumes(*partial)) {
                    // A newer upload has a higher number than the upload that it replaced.
                    let newest = last.entry((key.client, partial.worker));
                    let newest = newest.or_insert((*key, partial, path.clone()));
                    if newest.0 < *key {
                        *newest = (*key, partial, path.clone());
                    }
                }
            }
            FileKind::Report => {}
        }
    }
    let mut resumed = BTreeMap::new();
    for (key, partial, notes) in last.into_values() {
        if let Some(part) = parts.remove(&key) {
            let resting = Resting {
                key,
                part,
                notes,
                good: None,
            };
            resumed.insert(key, (partial, resting));
        }
    }
    resumed
}

/// Whose upload it is, as its notes say; none if they are damaged, or say another report than their name.
fn partial_of(key: SpoolKey, notes: &Path) -> Option<PartialKey> {
    let partial = read_notes(notes).ok()??.partial;
    (partial.report(key.upload) == key).then_some(partial)
}
