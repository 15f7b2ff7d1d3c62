//! A state folder as one tar file: only what such a folder has, with nothing but its bytes.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use tar::{Archive, Builder, EntryType, Header};

use crate::{disk, text::printable, words::plural};

/// The most characters of a name in a message.
const LONGEST: usize = 200;

/// Of a file that is no archive at all.
const OTHER: &str = "it is not what \"fedavg-coordinator state export DIR FILE\" writes, a tar archive of a state folder; give such a \
     file, not compressed";

/// Writes these files of a folder.
pub(in crate::cli) fn pack(
    folder: &Path,
    files: &[PathBuf],
    seconds: u64,
    to: &mut impl Write,
) -> io::Result<()> {
    let mut builder = Builder::new(to);
    for name in files {
        let file = File::open(folder.join(name))?;
        let length = file.metadata()?.len();
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_size(length);
        header.set_mtime(seconds);
        // Some of it is secret.
        header.set_mode(0o600);
        // No more than was announced: the next header would be somewhere else.
        builder.append_data(&mut header, name, file.take(length))?;
    }
    builder.into_inner()?.flush()
}

/// Makes the files of an archive of this length in an empty folder. Only what [`pack`] writes is taken: files alone, with the names
/// of a state folder's, that are no longer than the archive.
pub(in crate::cli) fn unpack(archive: impl Read, length: u64, folder: &Path) -> Result<(), String> {
    let mut archive = Archive::new(archive);
    let entries = archive.entries().map_err(|_| OTHER.to_string())?;
    let mut left = length;
    let mut files = 0_u64;
    // Raw: headers that only change the next one are entries of a kind that is refused, and are not read into memory.
    for entry in entries.raw(true) {
        let mut entry = entry.map_err(|error| match files {
            // What the parser of a header says of another file leads nowhere.
            0 => OTHER.to_string(),
            _ => format!(
                "after {} it is damaged or cut off: {error}; export again",
                plural(files, "file")
            ),
        })?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let shown = printable(&name, LONGEST).into_owned();
        if !matches!(entry.header().entry_type(), EntryType::Regular) {
            return Err(format!("{shown:?} in it is no plain file"));
        }
        if !is_ours(&name) {
            return Err(format!("{shown:?} in it is no file of a state folder"));
        }
        let size = entry.size();
        left = left.checked_sub(size).ok_or_else(|| {
            format!("{shown:?} in it has {size} bytes, more than the whole file has")
        })?;
        let path = folder.join(&name);
        let failed = |error: io::Error| format!("{shown}: {error}");
        if let Some(parent) = path.parent() {
            disk::make_private(parent).map_err(failed)?;
        }
        // One that is in it twice is refused.
        let mut options = File::options();
        // Some of it is secret.
        let options = options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(&path).map_err(failed)?;
        let copied = io::copy(&mut entry, &mut file).map_err(failed)?;
        if copied != size {
            return Err(format!(
                "it ends in the midst of {shown}: it is cut off; copy or export it again"
            ));
        }
        files += 1;
    }
    if files == 0 {
        return Err(OTHER.to_string());
    }
    Ok(())
}

/// Whether it is this prefix and a number.
fn is_numbered(part: &str, prefix: &str) -> bool {
    part.strip_prefix(prefix)
        .is_some_and(|number| number.parse::<u64>().is_ok_and(|n| n.to_string() == number))
}

/// Whether a state folder has files of such a name.
fn is_ours(name: &str) -> bool {
    let parts: Vec<_> = name.split('/').collect();
    match parts[..] {
        ["journal.db" | "alive"] => true,
        ["models", job, version, file] => {
            is_numbered(job, "job-")
                && is_numbered(version, "v")
                && file.ends_with(".safetensors")
                && file
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        }
        ["spool", job, round, file] => {
            let report = file.strip_suffix(".report");
            let numbers = report.and_then(|report| report.rsplit_once('-'));
            is_numbered(job, "job-")
                && is_numbered(round, "round-")
                && numbers.is_some_and(|(client, upload)| {
                    is_numbered(client, "client-") && is_numbered(upload, "")
                })
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const REPORT: &str = "spool/job-2/round-7/client-3-4294967301.report";

    /// An archive of one entry.
    fn archive(name: &str, change: impl FnOnce(&mut Header), bytes: &[u8]) -> Vec<u8> {
        let mut header = Header::new_ustar();
        // Past `set_path`, which refuses some of these.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(EntryType::Regular);
        header.set_size(bytes.len() as u64);
        change(&mut header);
        header.set_cksum();
        let mut archive = header.as_bytes().to_vec();
        archive.extend_from_slice(bytes);
        archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
        archive
    }

    fn unpacked(archive: &[u8]) -> Result<Vec<u8>, String> {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("in");
        fs::create_dir(&folder).unwrap();
        unpack(archive, archive.len() as u64, &folder)?;
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
        fs::read(folder.join("journal.db")).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_packed_is_unpacked_and_a_cut_archive_is_not() {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        let state = format!("models/job-1/v0/state-{}.safetensors", "s".repeat(64));
        let files = ["alive", "journal.db", &state, REPORT].map(PathBuf::from);
        for name in &files {
            fs::create_dir_all(from.join(name).parent().unwrap()).unwrap();
            fs::write(from.join(name), format!("bytes of {name:?}")).unwrap();
        }
        let mut packed = Vec::new();
        pack(&from, &files, 0, &mut packed).unwrap();
        fs::create_dir(&to).unwrap();
        unpack(&packed[..], packed.len() as u64, &to).unwrap();
        for name in &files {
            let read = |folder: &Path| fs::read(folder.join(name)).unwrap();
            assert_eq!(read(&from), read(&to));
        }
        let cut = &packed[..512 + 3];
        let to = root.path().join("cut");
        fs::create_dir(&to).unwrap();
        assert!(unpack(cut, cut.len() as u64, &to).is_err());
    }

    #[test]
    fn names_that_no_state_folder_has_are_refused() {
        let hostile = [
            "/journal.db",
            "../journal.db",
            "./journal.db",
            "models/../journal.db",
            "models/job-1/v0/..",
            "models/job-1/../../x.safetensors",
            "models/job-1/v0/deep/x.safetensors",
            "models/job-1/v0/lib.so",
            "models/job-01/v0/x.safetensors",
            "spool/job-1/round-1/client-1.report",
            "spool/job-1/round-1/client-1-+2.report",
            "lock",
            "journal.db-wal",
            "",
        ];
        for name in hostile {
            assert!(!is_ours(name), "{name}");
            assert!(unpacked(&archive(name, |_| {}, b"x")).is_err(), "{name}");
        }
        for name in ["alive", "models/job-1/v10/model.safetensors", REPORT] {
            assert!(is_ours(name), "{name}");
        }
        let whole = archive("journal.db", |_| {}, b"x");
        assert_eq!(unpacked(&whole), Ok(b"x".to_vec()));
    }

    #[test]
    fn what_is_no_archive_is_said_to_be_none() {
        for other in [&b""[..], b"no tar file", &[0x1f; 4096], &[0; 2048]] {
            assert_eq!(unpacked(other), Err(OTHER.to_string()));
        }
        let mut cut = archive("journal.db", |_| {}, b"x");
        cut.truncate(1024);
        cut.extend([7; 512]);
        let refused = unpacked(&cut).unwrap_err();
        assert!(refused.contains("after 1 file it is damaged"), "{refused}");
    }

    #[test]
    fn links_other_kinds_and_false_sizes_are_refused() {
        use EntryType::{
            Block, Char, Directory, Fifo, GNULongName, GNUSparse, Link, Symlink, XHeader,
        };
        for kind in [
            Link,
            Symlink,
            Char,
            Block,
            Fifo,
            Directory,
            GNULongName,
            GNUSparse,
            XHeader,
        ] {
            let set = |header: &mut Header| header.set_entry_type(kind);
            let refused = unpacked(&archive("journal.db", set, b"x")).unwrap_err();
            assert!(refused.contains("no plain file"), "{kind:?}: {refused}");
        }
        let huge = |header: &mut Header| header.set_size(1 << 50);
        let refused = unpacked(&archive("journal.db", huge, b"x")).unwrap_err();
        assert!(refused.contains("more than the whole file"), "{refused}");
    }

    #[test]
    fn a_file_that_is_in_it_twice_is_refused() {
        let mut twice = archive("journal.db", |_| {}, b"x");
        twice.truncate(1024);
        twice.extend(archive("journal.db", |_| {}, b"y"));
        assert!(unpacked(&twice).is_err());
    }
}
