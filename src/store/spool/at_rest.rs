//! The files of reports, for a look at them and for copies. Changes nothing.

use std::{fs::File, os::unix::fs::FileExt, path::PathBuf, sync::Arc};

use super::{
    leftovers::{FileKind, key_of},
    reopen::{CHUNK, read_trailer},
    rounds::Rounds,
};
use crate::{
    parameters::Digesting,
    report::SpoolKey,
    store::{
        DataFolder, StoreError,
        folder::{job_folders, names_in},
    },
};

/// The file that this report has.
pub(in crate::store) fn report_path(folder: &Arc<DataFolder>, key: SpoolKey) -> PathBuf {
    Rounds::new(folder.clone()).stored(key)
}

/// A file of the spool.
pub(crate) struct SpoolFile {
    pub key: SpoolKey,
    pub path: PathBuf,
    /// Whether it is a whole report, or a file of a broken upload.
    pub is_report: bool,
    /// Of a broken upload: whether it has all files that it takes to go on.
    pub can_go_on: bool,
}

/// All files of reports and of broken uploads.
pub(in crate::store) fn spool_files(folder: &DataFolder) -> Result<Vec<SpoolFile>, StoreError> {
    let mut files = Vec::new();
    if !folder.spool().exists() {
        return Ok(files);
    }
    for (job, job_path) in job_folders(&folder.spool())? {
        for round_name in names_in(&job_path)? {
            let round = round_name.strip_prefix("round-");
            let Some(round) = round.and_then(|round| round.parse().ok()) else {
                continue;
            };
            for name in names_in(&job_path.join(&round_name))? {
                if let Some((key, kind)) = key_of(job, round, &name) {
                    let path = job_path.join(&round_name).join(name);
                    let has_both = ["part", "resume"].map(|end| path.with_extension(end).exists());
                    files.push(SpoolFile {
                        key,
                        is_report: kind == FileKind::Report,
                        can_go_on: has_both == [true, true],
                        path,
                    });
                }
            }
        }
    }
    Ok(files)
}

/// Reads a report's file. An error is what is wrong with it.
pub(in crate::store) fn check_report(
    folder: &Arc<DataFolder>,
    key: SpoolKey,
) -> Result<u64, String> {
    let io = |error: std::io::Error| error.to_string();
    let file = File::open(report_path(folder, key)).map_err(io)?;
    let trailer = read_trailer(&file).map_err(io)?;
    let trailer = trailer.ok_or("its end, which says what it is, is damaged")?;
    if !trailer.is_of(key) {
        return Err("it is another report than its name says".to_string());
    }
    let mut digest = Digesting::default();
    let mut buffer = vec![0; CHUNK];
    for payload in &trailer.payloads {
        let end = payload.start.checked_add(payload.bytes);
        let end = end.filter(|end| *end <= trailer.bytes);
        let end = end.ok_or_else(|| format!("payload {:?} is beyond its end", payload.name))?;
        let mut offset = payload.start;
        while offset < end {
            let length = (end - offset).min(CHUNK as u64) as usize;
            let chunk = &mut buffer[..length];
            file.read_exact_at(chunk, offset).map_err(io)?;
            digest.update(chunk);
            offset += length as u64;
        }
    }
    let found = digest.finish().to_string();
    if found != trailer.digest {
        let expected = &trailer.digest;
        return Err(format!("its digest is {found}, and was {expected}"));
    }
    Ok(file.metadata().map_err(io)?.len())
}
